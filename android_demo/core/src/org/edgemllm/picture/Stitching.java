package org.edgemllm.picture;

/** The tokens of all tiles of a picture as the rows that the decoder takes. */
public final class Stitching {
    private final int width;

    /** Of embeddings with so many numbers each. */
    public Stitching(int width) {
        this.width = width;
    }

    /**
     * Rows of one picture in the order of the prompt's image tokens.
     *
     * @param embeddings [tiles, tokens of a tile, width] in the order of the plan's tiles
     * @param newline what ends the rows of a stitched picture; null where the plan needs none
     */
    public float[] join(float[] embeddings, TilePlan plan, int tokensPerTile, float[] newline) {
        if (plan.stitch == null) {
            return embeddings;
        }
        float[] end = plan.stitch.plain ? new float[0] : newline;
        int tile = tokensPerTile * width;
        if (plan.count() == 1) {
            return concatenated(embeddings, end);
        }
        int whole = plan.hasGlobal() ? tile : 0;
        int from = plan.globalFirst ? whole : 0;
        float[] grid = map(embeddings, from, plan, tokensPerTile, end);
        int wholeAt = plan.globalFirst ? 0 : embeddings.length - whole;
        float[] shown = java.util.Arrays.copyOfRange(embeddings, wholeAt, wholeAt + whole);
        return plan.globalFirst ? concatenated(shown, grid) : concatenated(grid, shown);
    }

    /** The window of the map that shows the picture, at its final size, every row with what ends it. */
    private float[] map(float[] embeddings, int from, TilePlan plan, int tokensPerTile, float[] end) {
        TokenMap part = plan.tokenMap(tokensPerTile);
        int side = TokenMap.squareRoot(tokensPerTile);
        float[] window = new float[part.rows * part.cols * width];
        for (int row = 0; row < part.rows; row++) {
            for (int col = 0; col < part.cols; col++) {
                int y = part.top + row;
                int x = part.left + col;
                int tile = y / side * plan.cols + x / side;
                int token = tile * tokensPerTile + y % side * side + x % side;
                System.arraycopy(embeddings, from + token * width, window, (row * part.cols + col) * width, width);
            }
        }
        float[] sized = part.shrunk() ? resized(window, part) : window;
        return withEnds(sized, part.newRows, part.newCols * width, end);
    }

    private static float[] withEnds(float[] values, int rows, int line, float[] end) {
        float[] out = new float[rows * (line + end.length)];
        for (int row = 0; row < rows; row++) {
            System.arraycopy(values, row * line, out, row * (line + end.length), line);
            System.arraycopy(end, 0, out, row * (line + end.length) + line, end.length);
        }
        return out;
    }

    /** As torch's interpolate(mode="bilinear"): between centres, without smoothing first, in single precision. */
    private float[] resized(float[] values, TokenMap part) {
        Neighbours down = new Neighbours(part.rows, part.newRows);
        Neighbours across = new Neighbours(part.cols, part.newCols);
        float[] out = new float[part.newRows * part.newCols * width];
        int at = 0;
        for (int row = 0; row < part.newRows; row++) {
            int above = down.first[row] * part.cols;
            int below = down.second[row] * part.cols;
            float low = down.share[row];
            for (int col = 0; col < part.newCols; col++) {
                float right = across.share[col];
                for (int i = 0; i < width; i++) {
                    int one = across.first[col] * width + i;
                    int two = across.second[col] * width + i;
                    float upper = values[above * width + one] * (1 - right) + values[above * width + two] * right;
                    float lower = values[below * width + one] * (1 - right) + values[below * width + two] * right;
                    out[at++] = upper * (1 - low) + lower * low;
                }
            }
        }
        return out;
    }

    private static float[] concatenated(float[] one, float[] other) {
        float[] all = java.util.Arrays.copyOf(one, one.length + other.length);
        System.arraycopy(other, 0, all, one.length, other.length);
        return all;
    }

    /** For each new place the two old ones it lies between and the weight of the second. */
    private static final class Neighbours {
        final int[] first;
        final int[] second;
        final float[] share;

        Neighbours(int size, int newSize) {
            first = new int[newSize];
            second = new int[newSize];
            share = new float[newSize];
            double scale = (double) ((float) size / (float) newSize);
            for (int i = 0; i < newSize; i++) {
                float source = (float) Math.max(scale * (i + 0.5) - 0.5, 0);
                first[i] = Math.min((int) source, size - 1);
                second[i] = Math.min(first[i] + 1, size - 1);
                share[i] = source - first[i];
            }
        }
    }
}
