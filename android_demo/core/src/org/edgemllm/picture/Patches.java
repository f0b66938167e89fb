package org.edgemllm.picture;

import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.util.Arrays;

/**
 * A picture as the list of patches that a tower for any size takes. Patches that become one visual token stand together:
 * the order is (token row, token column, row in the token, column in the token).
 */
public final class Patches {
    private final PatchInput spec;
    private final int rows;
    private final int cols;

    /** Of a picture with so many rows and columns of visual tokens. */
    public Patches(PatchInput spec, int[] tokenGrid) {
        this.spec = spec;
        this.rows = tokenGrid[0];
        this.cols = tokenGrid[1];
    }

    public int count() {
        return rows * cols * spec.merge * spec.merge;
    }

    /** Write packed patches; the values of a patch are in the order channel, frame, row, column. */
    public void put(Rgb picture, ImageSpec image, FloatBuffer out) {
        int side = spec.patch;
        float[] line = new float[side];
        for (int number = 0; number < count(); number++) {
            int top = row(number) * side;
            int left = col(number) * side;
            for (int channel = 0; channel < 3; channel++) {
                for (int frame = 0; frame < spec.frames; frame++) {
                    for (int y = 0; y < side; y++) {
                        int at = ((top + y) * picture.width + left) * 3 + channel;
                        for (int x = 0; x < side; x++, at += 3) {
                            line[x] = image.normalised(channel, picture.data[at]);
                        }
                        out.put(line);
                    }
                }
            }
        }
    }

    /** Write row and column of every patch. */
    public void putPositions(LongBuffer out) {
        for (int number = 0; number < count(); number++) {
            out.put(row(number)).put(col(number));
        }
    }

    /** How many windows the picture has. */
    public int windows() {
        return ceil(rows * spec.merge, spec.window) * ceil(cols * spec.merge, spec.window);
    }

    /**
     * Write the patches of each window, -1 behind them where the picture's edge cuts it, and the place of each patch in
     * that table.
     */
    public void putWindows(LongBuffer windows, LongBuffer places) {
        int area = spec.window * spec.window;
        int across = ceil(cols * spec.merge, spec.window);
        int[] used = new int[windows()];
        long[] table = new long[used.length * area];
        Arrays.fill(table, -1);
        for (int number = 0; number < count(); number++) {
            int window = row(number) / spec.window * across + col(number) / spec.window;
            int place = window * area + used[window]++;
            table[place] = number;
            places.put(place);
        }
        windows.put(table);
    }

    private int row(int number) {
        int inside = number % (spec.merge * spec.merge);
        int token = number / (spec.merge * spec.merge);
        return token / cols * spec.merge + inside / spec.merge;
    }

    private int col(int number) {
        int token = number / (spec.merge * spec.merge);
        return token % cols * spec.merge + number % spec.merge;
    }

    private static int ceil(int value, int by) {
        return (value + by - 1) / by;
    }
}
