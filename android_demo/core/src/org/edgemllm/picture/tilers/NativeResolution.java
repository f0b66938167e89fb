package org.edgemllm.picture.tilers;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

import org.edgemllm.errors.ImageException;
import org.edgemllm.picture.Step;
import org.edgemllm.picture.TilePlan;

/** No tiles: the whole picture at its own size, rounded to whole units and brought between two numbers of pixels. */
public final class NativeResolution extends Tiler {
    private static final int MAX_RATIO = 200;

    private final int unit;
    private final int minPixels;
    private final int maxPixels;

    public NativeResolution(int unit, int minPixels, int maxPixels) {
        this.unit = unit;
        this.minPixels = minPixels;
        this.maxPixels = maxPixels;
    }

    @Override
    public String kind() {
        return "native_resolution";
    }

    @Override
    TilePlan cut(int width, int height) {
        if ((double) Math.max(width, height) / Math.min(width, height) > MAX_RATIO) {
            throw ImageException.ofSize(width, height, "no side may be more than " + MAX_RATIO + " times the other");
        }
        int[] size = size(width, height);
        List<Step> steps = Collections.singletonList(Step.resize(size[0], size[1]));
        List<int[]> crops = Collections.singletonList(new int[] {0, 0, size[0], size[1]});
        TilePlan plan = new TilePlan(width, height, steps, crops, 1, 1);
        plan.tokenGrid = new int[] {size[1] / unit, size[0] / unit};
        return plan;
    }

    @Override
    List<Tiler> coarser() {
        List<Tiler> found = new ArrayList<Tiler>();
        found.add(this);
        int tokens = (int) (maxPixels / ((long) unit * unit));
        while (tokens > 1) {
            tokens -= Math.max(1, tokens / 64);
            found.add(atMost(tokens));
        }
        return found;
    }

    @Override
    public Tiler lowDetail(int width, int height) {
        return atMost(LOW_DETAIL_TOKENS);
    }

    private Tiler atMost(int tokens) {
        int pixels = (int) Math.min((long) maxPixels, (long) tokens * unit * unit);
        return new NativeResolution(unit, Math.min(minPixels, pixels), pixels);
    }

    /** Width and height after resizing; the order of the float operations is the reference's. */
    private int[] size(int width, int height) {
        long newHeight = (long) Math.rint((double) height / unit) * unit;
        long newWidth = (long) Math.rint((double) width / unit) * unit;
        if (newHeight * newWidth > maxPixels) {
            double shrink = Math.sqrt((double) ((long) height * width) / maxPixels);
            newHeight = Math.max(unit, (long) Math.floor(height / shrink / unit) * unit);
            newWidth = Math.max(unit, (long) Math.floor(width / shrink / unit) * unit);
        } else if (newHeight * newWidth < minPixels) {
            double grow = Math.sqrt((double) minPixels / ((long) height * width));
            newHeight = (long) Math.ceil(height * grow / unit) * unit;
            newWidth = (long) Math.ceil(width * grow / unit) * unit;
        }
        return new int[] {(int) newWidth, (int) newHeight};
    }
}
