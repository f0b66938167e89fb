package org.edgemllm.picture;

/** One step of a tile plan: resample the canvas to a size, or put it on a larger one of one colour. */
public final class Step {
    public final int width;
    public final int height;
    /** Whether this pads; else it resamples. */
    public final boolean pads;
    public final int left;
    public final int top;
    /** Red, green and blue of the padding. */
    public final int[] fill;

    private Step(int width, int height, boolean pads, int left, int top, int[] fill) {
        this.width = width;
        this.height = height;
        this.pads = pads;
        this.left = left;
        this.top = top;
        this.fill = fill;
    }

    /** Resample the whole canvas with the model's filter. */
    public static Step resize(int width, int height) {
        return new Step(width, height, false, 0, 0, null);
    }

    /** Put the canvas at (left, top) of a larger one. */
    public static Step pad(int width, int height, int left, int top, int[] fill) {
        return new Step(width, height, true, left, top, fill);
    }
}
