package org.edgemllm.engine;

/** A run of text tokens, or of one picture's visual tokens. */
public final class Segment {
    /** Token ids; null for visual tokens. */
    public final int[] ids;
    /** Embeddings with what goes to further layers [n, row width]; null for text. */
    public final float[] rows;
    /** How many cells it takes. */
    public final int length;
    /** Rows and columns of visual tokens for positions of three axes, else null. */
    public final int[] grid;

    private Segment(int[] ids, float[] rows, int length, int[] grid) {
        this.ids = ids;
        this.rows = rows;
        this.length = length;
        this.grid = grid;
    }

    public static Segment tokens(int[] ids) {
        return new Segment(ids, null, ids.length, null);
    }

    public static Segment visual(float[] rows, int length, int[] grid) {
        return new Segment(null, rows, length, grid);
    }

    public boolean isText() {
        return ids != null;
    }
}
