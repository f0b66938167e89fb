package org.edgemllm.cli;

import java.awt.Rectangle;
import java.awt.image.BufferedImage;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.FileReader;
import java.io.IOException;
import java.util.Iterator;
import javax.imageio.IIOImage;
import javax.imageio.ImageIO;
import javax.imageio.ImageReadParam;
import javax.imageio.ImageReader;
import javax.imageio.ImageWriteParam;
import javax.imageio.ImageWriter;
import javax.imageio.stream.ImageInputStream;
import javax.imageio.stream.ImageOutputStream;

import org.edgemllm.measure.Machine;
import org.edgemllm.picture.Rgb;
import org.edgemllm.picture.file.Decoded;
import org.edgemllm.picture.file.PictureFile;
import org.edgemllm.screen.Platform;

/** JPEG, BMP and GIF by the JVM's own decoders, whose pixels are not bit for bit those of libjpeg-turbo. */
final class JvmFormats implements Platform {
    /** A strip of a large picture may take this part of the heap. */
    private static final int SHARE = 4;
    private static final float QUALITY = 0.9f;

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

    @Override
    public byte[] encode(Rgb picture) throws IOException {
        BufferedImage image = new BufferedImage(picture.width, picture.height, BufferedImage.TYPE_INT_RGB);
        for (int y = 0; y < picture.height; y++) {
            for (int x = 0; x < picture.width; x++) {
                int at = (y * picture.width + x) * 3;
                image.setRGB(x, y, (picture.data[at] & 255) << 16 | (picture.data[at + 1] & 255) << 8
                    | picture.data[at + 2] & 255);
            }
        }
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        ImageWriter writer = ImageIO.getImageWritersByFormatName("jpeg").next();
        try (ImageOutputStream stream = ImageIO.createImageOutputStream(out)) {
            ImageWriteParam options = writer.getDefaultWriteParam();
            options.setCompressionMode(ImageWriteParam.MODE_EXPLICIT);
            options.setCompressionQuality(QUALITY);
            writer.setOutput(stream);
            writer.write(null, new IIOImage(image, null, null), options);
        } finally {
            writer.dispose();
        }
        return out.toByteArray();
    }

    @Override
    public Machine machine() {
        String name = System.getProperty("os.name", "");
        try (BufferedReader lines = new BufferedReader(new FileReader("/etc/os-release"))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                name = line.startsWith("PRETTY_NAME=") ? line.substring(12).replace("\"", "") : name;
            }
        } catch (IOException error) {
            return new Machine(name, "");
        }
        return new Machine(name, "");
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
