package org.edgemllm.cli;

import java.awt.image.BufferedImage;
import java.awt.image.Raster;
import java.io.ByteArrayInputStream;
import javax.imageio.ImageIO;

import org.edgemllm.picture.Rgb;
import org.edgemllm.picture.file.PictureFile;

/** JPEG, BMP and GIF by the JVM's own decoders, whose pixels are not bit for bit those of libjpeg-turbo. */
final class JvmFormats implements PictureFile.OtherFormats {
    @Override
    public Rgb decode(byte[] file) throws Exception {
        ImageIO.setUseCache(false);
        BufferedImage image = ImageIO.read(new ByteArrayInputStream(file));
        if (image == null) {
            return null;
        }
        PictureFile.checkSize(image.getWidth(), image.getHeight(), "given as bytes");
        return image.getRaster().getNumBands() == 1 && image.getType() == BufferedImage.TYPE_BYTE_GRAY
            ? grey(image.getRaster()) : colour(image);
    }

    /** Grey samples as they are: getRGB would take them for linear light. */
    private static Rgb grey(Raster raster) {
        Rgb out = new Rgb(raster.getWidth(), raster.getHeight());
        int place = 0;
        for (int y = 0; y < out.height; y++) {
            for (int value : raster.getSamples(0, y, out.width, 1, 0, (int[]) null)) {
                for (int channel = 0; channel < 3; channel++) {
                    out.data[place++] = (byte) value;
                }
            }
        }
        return out;
    }

    private static Rgb colour(BufferedImage image) {
        Rgb out = new Rgb(image.getWidth(), image.getHeight());
        int[] line = new int[out.width];
        for (int y = 0; y < out.height; y++) {
            image.getRGB(0, y, out.width, 1, line, 0, out.width);
            out.line(y, line);
        }
        return out;
    }
}
