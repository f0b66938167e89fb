package org.edgemllm.picture.file;

import java.io.IOException;

import org.edgemllm.picture.Rgb;

/**
 * Samples of a PNG picture as RGB, by the rule of the Python runtime: 16 bits keep their high byte, and transparency,
 * whether a channel, a palette entry or a colour key, is composited on white with Pillow's arithmetic.
 */
final class PngColours {
    private static final int GREY = 0;
    private static final int RGB = 2;
    private static final int PALETTE = 3;
    private static final int GREY_ALPHA = 4;
    private static final int RGB_ALPHA = 6;

    private final PngFile png;
    private final int channels;

    PngColours(PngFile png) throws IOException {
        this.png = png;
        this.channels = png.colour == RGB ? 3 : png.colour == GREY_ALPHA ? 2 : png.colour == RGB_ALPHA ? 4 : 1;
        boolean known = png.colour == GREY || png.colour == RGB || png.colour == PALETTE || png.colour == GREY_ALPHA
            || png.colour == RGB_ALPHA;
        boolean small = png.depth == 1 || png.depth == 2 || png.depth == 4;
        boolean fits = png.depth == 8 || png.depth == 16 && png.colour != PALETTE || small && channels == 1
            && (png.colour == GREY || png.colour == PALETTE);
        if (!known || !fits) {
            throw new IOException("there is no colour type " + png.colour + " with " + png.depth + " bits");
        }
    }

    /** Bits of a pixel. */
    int bits() {
        return png.depth * channels;
    }

    /** RGB of plain lines of packed samples. */
    Rgb rgb(byte[] lines) throws IOException {
        Rgb out = new Rgb(png.width, png.height);
        int line = (int) (((long) png.width * bits() + 7) / 8);
        int[] pixel = new int[4];
        int place = 0;
        for (int y = 0; y < png.height; y++) {
            for (int x = 0; x < png.width; x++) {
                read(lines, y * line, x, pixel);
                for (int channel = 0; channel < 3; channel++) {
                    out.data[place++] = (byte) onWhite(pixel[channel], pixel[3]);
                }
            }
        }
        return out;
    }

    /** Red, green, blue and alpha of one pixel. */
    private void read(byte[] lines, int start, int x, int[] pixel) throws IOException {
        if (png.colour == PALETTE) {
            readPalette(sample(lines, start, x), pixel);
            return;
        }
        boolean grey = png.colour == GREY || png.colour == GREY_ALPHA;
        for (int channel = 0; channel < 3; channel++) {
            pixel[channel] = value(lines, start, x * channels + (grey ? 0 : channel));
        }
        boolean alpha = png.colour == GREY_ALPHA || png.colour == RGB_ALPHA;
        pixel[3] = alpha ? value(lines, start, x * channels + channels - 1) : 255;
        if (!alpha && png.transparency != null && isKey(lines, start, x, pixel)) {
            pixel[3] = 0;
        }
    }

    private void readPalette(int entry, int[] pixel) {
        for (int channel = 0; channel < 3; channel++) {
            int place = entry * 3 + channel;
            pixel[channel] = place < png.palette.length ? png.palette[place] & 255 : 0;
        }
        boolean named = png.transparency != null && entry < png.transparency.length;
        pixel[3] = named ? png.transparency[entry] & 255 : 255;
    }

    /** Whether a pixel is the transparent colour; Pillow compares the file's number with the value of 8 bits. */
    private boolean isKey(byte[] lines, int start, int x, int[] pixel) throws IOException {
        if (png.transparency.length < (png.colour == RGB ? 6 : 2)) {
            throw new IOException("Truncated tRNS chunk");
        }
        if (png.colour == GREY && png.depth == 16) {
            int place = start + x * 2;
            return ((lines[place] & 255) << 8 | lines[place + 1] & 255) == key(0);
        }
        if (png.colour == GREY && png.depth == 1) {
            return pixel[0] == (key(0) == 0 ? 0 : 255);
        }
        boolean same = true;
        for (int channel = 0; channel < 3; channel++) {
            int wanted = key(png.colour == RGB ? channel : 0);
            same &= pixel[channel] == (wanted & 255);
        }
        return same;
    }

    private int key(int number) {
        return (png.transparency[number * 2] & 255) << 8 | png.transparency[number * 2 + 1] & 255;
    }

    /** A sample as a value of 8 bits. */
    private int value(byte[] lines, int start, int number) {
        if (png.depth == 16) {
            return lines[start + number * 2] & 255;
        }
        return sample(lines, start, number) * (255 / ((1 << png.depth) - 1));
    }

    /** A sample of at most 8 bits as it is. */
    private int sample(byte[] lines, int start, int number) {
        int bit = number * png.depth;
        return lines[start + bit / 8] >> (8 - png.depth - bit % 8) & (1 << png.depth) - 1;
    }

    /** As ImagingAlphaComposite does it over opaque white. */
    private static int onWhite(int value, int alpha) {
        if (alpha == 255) {
            return value;
        }
        if (alpha == 0) {
            return 255;
        }
        int whole = alpha * 255 + 255 * (255 - alpha);
        int one = (int) ((long) alpha * 255 * 255 * 128 / whole);
        int other = 255 * 128 - one;
        int sum = value * one + 255 * other + (128 << 7);
        return ((sum >>> 8) + sum >>> 8) >>> 7;
    }
}
