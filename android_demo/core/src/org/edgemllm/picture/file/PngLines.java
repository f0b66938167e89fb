package org.edgemllm.picture.file;

import java.io.IOException;

/** The filtered lines of a PNG picture, of one pass or of Adam7's seven, as plain lines of packed samples. */
final class PngLines {
    private static final int[][] WHOLE = {{0, 0, 1, 1}};
    /** First column and row, steps of columns and rows. */
    private static final int[][] ADAM7 = {
        {0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};

    private final int width;
    private final int height;
    /** Bits of a pixel. */
    private final int bits;
    private final int[][] passes;

    PngLines(int width, int height, int bits, boolean interlaced) {
        this.width = width;
        this.height = height;
        this.bits = bits;
        this.passes = interlaced ? ADAM7 : WHOLE;
    }

    /** Bytes of all filtered lines. */
    int bytes() {
        long sum = 0;
        for (int[] pass : passes) {
            long line = columns(pass) == 0 ? 0 : lineBytes(columns(pass)) + 1;
            sum += line * rows(pass);
        }
        if (sum > Integer.MAX_VALUE - 8) {
            throw new IllegalArgumentException("it is too large");
        }
        return (int) sum;
    }

    /** Lines without filters, each beginning with a whole byte. */
    byte[] unfiltered(byte[] raw) throws IOException {
        int whole = lineBytes(width);
        byte[] out = new byte[Math.multiplyExact(whole, height)];
        int place = 0;
        for (int[] pass : passes) {
            int columns = columns(pass);
            int line = lineBytes(columns);
            byte[] before = new byte[line];
            for (int row = 0; row < rows(pass) && columns > 0; row++) {
                byte[] now = java.util.Arrays.copyOfRange(raw, place + 1, place + 1 + line);
                undo(raw[place], now, before);
                spread(now, columns, pass, out, (pass[1] + row * pass[3]) * whole);
                before = now;
                place += line + 1;
            }
        }
        return out;
    }

    private void undo(int filter, byte[] line, byte[] above) throws IOException {
        int step = Math.max(bits / 8, 1);
        for (int i = 0; i < line.length; i++) {
            int left = i < step ? 0 : line[i - step] & 255;
            int up = above[i] & 255;
            int guess;
            if (filter == 0) {
                guess = 0;
            } else if (filter == 1) {
                guess = left;
            } else if (filter == 2) {
                guess = up;
            } else if (filter == 3) {
                guess = (left + up) / 2;
            } else if (filter == 4) {
                guess = paeth(left, up, i < step ? 0 : above[i - step] & 255);
            } else {
                throw new IOException("a line has an unknown filter");
            }
            line[i] += guess;
        }
    }

    private static int paeth(int left, int up, int corner) {
        int all = left + up - corner;
        int byLeft = Math.abs(all - left);
        int byUp = Math.abs(all - up);
        int byCorner = Math.abs(all - corner);
        if (byLeft <= byUp && byLeft <= byCorner) {
            return left;
        }
        return byUp <= byCorner ? up : corner;
    }

    /** Put the pixels of a pass's line where they belong. */
    private void spread(byte[] line, int columns, int[] pass, byte[] out, int start) {
        if (passes == WHOLE) {
            System.arraycopy(line, 0, out, start, line.length);
            return;
        }
        for (int i = 0; i < columns; i++) {
            int to = pass[0] + i * pass[2];
            if (bits >= 8) {
                System.arraycopy(line, i * bits / 8, out, start + to * bits / 8, bits / 8);
            } else {
                int value = line[i * bits / 8] >> (8 - bits - i * bits % 8) & (1 << bits) - 1;
                out[start + to * bits / 8] |= value << (8 - bits - to * bits % 8);
            }
        }
    }

    private int columns(int[] pass) {
        return Math.max(0, (width - pass[0] + pass[2] - 1) / pass[2]);
    }

    private int rows(int[] pass) {
        return Math.max(0, (height - pass[1] + pass[3] - 1) / pass[3]);
    }

    private int lineBytes(int columns) {
        return (int) (((long) columns * bits + 7) / 8);
    }
}
