package org.edgemllm.cli;

import java.awt.Rectangle;
import java.awt.image.BufferedImage;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.util.Iterator;
import javax.imageio.ImageIO;
import javax.imageio.ImageReadParam;
import javax.imageio.ImageReader;
import javax.imageio.stream.ImageInputStream;

import org.edgemllm.picture.Rgb;
import org.edgemllm.picture.file.Decoded;
import org.edgemllm.picture.file.PictureFile;

/** JPEG, BMP and GIF by the JVM's own decoders, whose pixels are not bit for bit those of libjpeg-turbo. */
final class JvmFormats implements PictureFile.OtherFormats {
    /** A strip of a large picture may take this part of the heap. */
    private static final int SHARE = 4;

    @Override
    public Decoded decode(byte[] file) throws Exception {
        ImageIO.setUseCache(false);
        try (ImageInputStream stream = ImageIO.createImageInputStream(new ByteArrayInputStream(file))) {
            Iterator<ImageReader> readers = ImageIO.getImageReaders(stream);
            if (!readers.hasNext()) {
                return null;
            }
            ImageReader reader = readers.next();
            try {
                reader.setInput(stream, false, true);
                return read(reader);
            } finally {
                reader.dispose();
            }
        }
    }

    private static Decoded read(ImageReader reader) throws IOException {
        int width = reader.getWidth(0);
        int height = reader.getHeight(0);
        PictureFile.checkSize(width, height, "given as bytes");
        int by = Decoded.halves(width, height);
        return new Decoded(by == 1 ? whole(reader) : smaller(reader, width, height, by), width, height, by);
    }

    private static Rgb whole(ImageReader reader) throws IOException {
        BufferedImage image = reader.read(0);
        Rgb out = new Rgb(image.getWidth(), image.getHeight());
        int[] line = new int[out.width];
        for (int y = 0; y < out.height; y++) {
            out.line(y, colours(image, y, line));
        }
        return out;
    }

    /** Strip by strip, each square of {@code by} x {@code by} pixels as its mean. The decoder begins anew for a strip. */
    private static Rgb smaller(ImageReader reader, int width, int height, int by) throws IOException {
        Squares squares = new Squares(width, height, by);
        int[] line = new int[width];
        long room = Runtime.getRuntime().maxMemory() / SHARE / (4L * width);
        int rows = (int) Math.max(by, Math.min(room, height) / by * by);
        for (int top = 0; top < height; top += rows) {
            ImageReadParam part = reader.getDefaultReadParam();
            part.setSourceRegion(new Rectangle(0, top, width, Math.min(rows, height - top)));
            BufferedImage strip = reader.read(0, part);
            for (int y = 0; y < strip.getHeight(); y++) {
                squares.add(colours(strip, y, line));
            }
        }
        return squares.picture();
    }

    /** One line as 0xAARRGGBB; grey samples as they are: getRGB would take them for linear light. */
    private static int[] colours(BufferedImage image, int y, int[] line) {
        if (image.getRaster().getNumBands() == 1 && image.getType() == BufferedImage.TYPE_BYTE_GRAY) {
            image.getRaster().getSamples(0, y, line.length, 1, 0, line);
            for (int x = 0; x < line.length; x++) {
                line[x] = 0xFF000000 | line[x] * 0x010101;
            }
            return line;
        }
        return image.getRGB(0, y, line.length, 1, line, 0, line.length);
    }
}
