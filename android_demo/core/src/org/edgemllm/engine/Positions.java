package org.edgemllm.engine;

import java.util.Arrays;
import java.util.List;

import org.edgemllm.errors.EngineException;

/**
 * Which position every cell of the cache has: one number, or three for multimodal rotary positions. A text token has the
 * same number on all axes; a picture's tokens share the first, count rows and columns on the other two, and push what
 * follows by the longer side of the grid only.
 */
final class Positions {
    final int axes;
    /** For each cell the position that follows it. */
    private int[] after = new int[64];
    private int count;

    Positions(boolean mrope) {
        axes = mrope ? 3 : 1;
    }

    int count() {
        return count;
    }

    /** Position of the next text token. */
    int next() {
        return count == 0 ? 0 : after[count - 1];
    }

    void truncate(int cells) {
        count = cells;
    }

    /** Record cells that are in the cache now. */
    void extend(int[] afters, int from, int to) {
        while (count + to - from > after.length) {
            after = Arrays.copyOf(after, after.length * 2);
        }
        System.arraycopy(afters, from, after, count, to - from);
        count += to - from;
    }

    /** Positions of cells in the making. */
    static final class Placed {
        /** [axes][n] */
        final long[][] positions;
        final int[] after;

        Placed(int axes, int count) {
            positions = new long[axes][count];
            after = new int[count];
        }
    }

    /** Positions of segments that follow the cache. Records nothing. */
    Placed place(List<Segment> segments) {
        int all = 0;
        for (Segment segment : segments) {
            all += segment.length;
        }
        Placed placed = new Placed(axes, all);
        int start = next();
        int at = 0;
        for (Segment segment : segments) {
            place(segment, start, placed, at);
            at += segment.length;
            start = segment.length > 0 ? placed.after[at - 1] : start;
        }
        return placed;
    }

    private void place(Segment segment, int start, Placed placed, int at) {
        boolean line = axes == 1 || segment.isText();
        int rows = line || segment.grid == null ? 0 : segment.grid[0];
        int cols = line || segment.grid == null ? 0 : segment.grid[1];
        if (!line && rows * cols != segment.length) {
            throw new EngineException("a picture of " + segment.length
                + " visual tokens needs its grid for this model, got " + rows + "x" + cols);
        }
        for (int i = 0; i < segment.length; i++) {
            for (int axis = 0; axis < axes; axis++) {
                int step = line ? i : axis == 0 ? 0 : axis == 1 ? i / cols : i % cols;
                placed.positions[axis][at + i] = start + step;
            }
            placed.after[at + i] = line ? start + i + 1 : start + Math.max(rows, cols);
        }
    }
}
