package org.edgemllm.engine;

import java.util.List;

/** Tokens on their way into the cache. */
final class Batch {
    static final long TEXT = -1;

    /** Embeddings with what goes to further layers [n, row width]. */
    final float[] rows;
    final Positions.Placed placed;
    /** For each token the number of the picture's run that it belongs to, -1 for text. */
    final long[] blocks;

    Batch(float[] rows, Positions.Placed placed, List<Segment> segments) {
        this.rows = rows;
        this.placed = placed;
        this.blocks = new long[placed.after.length];
        int at = 0;
        for (int number = 0; number < segments.size(); number++) {
            Segment segment = segments.get(number);
            for (int i = 0; i < segment.length; i++) {
                blocks[at++] = segment.isText() ? TEXT : number;
            }
        }
    }

    int count() {
        return blocks.length;
    }

    /**
     * End of the run that begins at a place. With {@code whole} every picture's run stays in one piece: a run is then
     * shorter so that a picture begins the next one, and longer only where one picture alone has more tokens.
     */
    int endOfRun(int start, int stop, int size, boolean whole) {
        int end = Math.min(start + size, stop);
        if (!whole || end >= stop || blocks[end] == TEXT || blocks[end] != blocks[end - 1]) {
            return end;
        }
        int first = end;
        while (first > 0 && blocks[first - 1] == blocks[end]) {
            first--;
        }
        int last = end;
        while (last < stop && blocks[last] == blocks[end]) {
            last++;
        }
        return first > start ? first : last;
    }
}
