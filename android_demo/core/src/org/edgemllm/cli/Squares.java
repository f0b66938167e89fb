package org.edgemllm.cli;

import org.edgemllm.picture.Rgb;

/** Makes a picture smaller line by line: every square of pixels becomes its mean, at the edges what is left of it. */
final class Squares {
    private final Rgb out;
    private final int width;
    private final int by;
    private final int[] means;
    private final long[] sums;
    private int rows;
    private int done;

    Squares(int width, int height, int by) {
        this.width = width;
        this.by = by;
        this.out = new Rgb((width + by - 1) / by, (height + by - 1) / by);
        this.sums = new long[out.width * 4];
        this.means = new int[out.width];
    }

    /** Take the next line of the large picture, as 0xAARRGGBB. */
    void add(int[] line) {
        for (int x = 0; x < width; x++) {
            int colour = line[x];
            int at = x / by * 4;
            sums[at] += colour >>> 24;
            sums[at + 1] += colour >> 16 & 255;
            sums[at + 2] += colour >> 8 & 255;
            sums[at + 3] += colour & 255;
        }
        rows++;
        if (rows == by) {
            end();
        }
    }

    /** The small picture, when all lines are there. */
    Rgb picture() {
        if (rows > 0) {
            end();
        }
        return out;
    }

    private void end() {
        for (int x = 0; x < out.width; x++) {
            long count = (long) rows * Math.min(by, width - x * by);
            int colour = 0;
            for (int channel = 0; channel < 4; channel++) {
                colour = colour << 8 | (int) ((sums[x * 4 + channel] + count / 2) / count);
            }
            means[x] = colour;
        }
        java.util.Arrays.fill(sums, 0);
        out.line(done++, means);
        rows = 0;
    }
}
