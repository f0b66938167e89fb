package org.edgemllm.picture;

import org.edgemllm.errors.MemoryException;

/** A picture of 8-bit red, green and blue: three bytes a pixel, row by row. */
public final class Rgb {
    public final int width;
    public final int height;
    public final byte[] data;

    public Rgb(int width, int height) {
        this(width, height, new byte[bytes(width, height)]);
    }

    private static int bytes(int width, int height) {
        long bytes = 3L * width * height;
        if (bytes > Integer.MAX_VALUE - 8) {
            throw new MemoryException("a picture of " + width + "x" + height + " pixels", null);
        }
        return (int) bytes;
    }

    public Rgb(int width, int height, byte[] data) {
        if (data.length != (long) width * height * 3) {
            throw new IllegalArgumentException(data.length + " bytes are no " + width + "x" + height + " picture");
        }
        this.width = width;
        this.height = height;
        this.data = data;
    }

    /** Sets one line from colours with alpha, as platforms give them (0xAARRGGBB), composited on white. */
    public void line(int y, int[] colours) {
        int place = y * width * 3;
        for (int colour : colours) {
            int alpha = colour >>> 24;
            for (int shift = 16; shift >= 0; shift -= 8) {
                int value = colour >> shift & 255;
                data[place++] = (byte) ((value * alpha + 255 * (255 - alpha) + 127) / 255);
            }
        }
    }

    /** A rectangle that lies in the picture. */
    public Rgb crop(int left, int top, int right, int bottom) {
        if (left == 0 && top == 0 && right == width && bottom == height) {
            return this;
        }
        Rgb out = new Rgb(right - left, bottom - top);
        for (int row = 0; row < out.height; row++) {
            System.arraycopy(data, ((top + row) * width + left) * 3, out.data, row * out.width * 3, out.width * 3);
        }
        return out;
    }

    /** The picture on a larger canvas of one colour. */
    Rgb padded(Step step) {
        Rgb out = new Rgb(step.width, step.height);
        for (int i = 0; i < out.data.length; i++) {
            out.data[i] = (byte) step.fill[i % 3];
        }
        for (int row = 0; row < height; row++) {
            int to = ((step.top + row) * out.width + step.left) * 3;
            System.arraycopy(data, row * width * 3, out.data, to, width * 3);
        }
        return out;
    }
}
