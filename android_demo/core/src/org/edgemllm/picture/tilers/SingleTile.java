package org.edgemllm.picture.tilers;

import java.util.Arrays;
import java.util.Collections;
import java.util.List;

import org.edgemllm.errors.ImageException;
import org.edgemllm.picture.Step;
import org.edgemllm.picture.Stitch;
import org.edgemllm.picture.TilePlan;

/** One tile a picture: stretched, or its middle cut out, or put on a square first. */
public final class SingleTile extends Tiler {
    private static final long MAX_RESIZED = 1L << 27;

    private final int tile;
    /** "stretch", "crop" or "pad". */
    private final String fit;
    private final int[] fill;
    private final Stitch stitch;

    public SingleTile(int tile, String fit, int[] fill, Stitch stitch) {
        this.tile = tile;
        this.fit = fit;
        this.fill = fill;
        this.stitch = stitch;
    }

    @Override
    public String kind() {
        return "single_tile";
    }

    @Override
    public Stitch stitch() {
        return stitch;
    }

    @Override
    TilePlan cut(int width, int height) {
        List<Step> steps = Collections.singletonList(Step.resize(tile, tile));
        int left = 0;
        int top = 0;
        if (fit.equals("crop")) {
            int[] size = shorterTo(width, height);
            steps = Collections.singletonList(Step.resize(size[0], size[1]));
            left = (size[0] - tile) / 2;
            top = (size[1] - tile) / 2;
        } else if (fit.equals("pad") && width != height) {
            int side = Math.max(width, height);
            Step pad = Step.pad(side, side, (side - width) / 2, (side - height) / 2, fill);
            steps = Arrays.asList(pad, Step.resize(tile, tile));
        }
        List<int[]> crops = Collections.singletonList(new int[] {left, top, left + tile, top + tile});
        TilePlan plan = new TilePlan(width, height, steps, crops, 1, 1);
        plan.stitch = stitch;
        return plan;
    }

    @Override
    List<Tiler> coarser() {
        return Collections.<Tiler>singletonList(this);
    }

    /** The shorter side becomes the tile's, the other keeps the ratio, rounded down. */
    private int[] shorterTo(int width, int height) {
        int longer = (int) ((double) ((long) tile * Math.max(width, height)) / Math.min(width, height));
        if ((long) longer * tile > MAX_RESIZED) {
            throw ImageException.ofSize(width, height, "it is too long and thin: scaled up it would have "
                + (long) longer * tile + " pixels, the limit is " + MAX_RESIZED);
        }
        return width <= height ? new int[] {tile, longer} : new int[] {longer, tile};
    }
}
