package org.edgemllm.picture.tilers;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;

import org.edgemllm.picture.Step;
import org.edgemllm.picture.TilePlan;

/**
 * The longest edge gets a fixed length, both sides are rounded up to whole tiles, a tile of the whole comes last. Floats
 * are divided and truncated in the reference's order on purpose.
 */
public final class LongestEdgeGrid extends Tiler {
    private static final int MAX_LONGEST_EDGE = 4096;

    private final int longestEdge;
    private final int tile;
    private final boolean split;

    public LongestEdgeGrid(int longestEdge, int tile, boolean split) {
        this.longestEdge = longestEdge;
        this.tile = tile;
        this.split = split;
    }

    @Override
    public String kind() {
        return "longest_edge_grid";
    }

    @Override
    TilePlan cut(int width, int height) {
        int[] scaled = scaled(width, height, longestEdge);
        scaled = bounded(scaled[0], scaled[1]);
        int[] canvas = split ? roundedUp(scaled[0], scaled[1], tile) : new int[] {tile, tile};
        int cols = canvas[0] / tile;
        int rows = canvas[1] / tile;
        TilePlan.checkCount(width, height, (long) rows * cols);
        List<Step> steps = Arrays.asList(Step.resize(scaled[0], scaled[1]), Step.resize(canvas[0], canvas[1]));
        TilePlan plan = new TilePlan(width, height, steps, TilePlan.gridBoxes(rows, cols, tile, tile), rows, cols);
        plan.globalSteps = rows * cols > 1 ? Collections.singletonList(Step.resize(tile, tile)) : null;
        return plan;
    }

    @Override
    List<Tiler> coarser() {
        List<Tiler> found = new ArrayList<Tiler>();
        found.add(this);
        for (int n = ceilOf((double) longestEdge / tile) - 1; n > 1; n--) {
            found.add(new LongestEdgeGrid(n * tile, tile, split));
        }
        found.add(new LongestEdgeGrid(longestEdge, tile, false));
        return found;
    }

    /** The longest side becomes {@code longest}, the other keeps the ratio and is made even, but stays above zero. */
    private static int[] scaled(int width, int height, int longest) {
        double ratio = (double) width / height;
        int other = width >= height ? (int) (longest / ratio) : (int) (longest * ratio);
        other = Math.max(other + other % 2, 1);
        return width >= height ? new int[] {longest, other} : new int[] {other, longest};
    }

    private static int[] bounded(int width, int height) {
        double ratio = (double) width / height;
        if (width >= height && width > MAX_LONGEST_EDGE) {
            width = MAX_LONGEST_EDGE;
            height = (int) (MAX_LONGEST_EDGE / ratio);
        } else if (height > width && height > MAX_LONGEST_EDGE) {
            width = (int) (MAX_LONGEST_EDGE * ratio);
            height = MAX_LONGEST_EDGE;
        }
        return new int[] {Math.max(width, 1), Math.max(height, 1)};
    }

    /** Round the longer side up to whole tiles, let the other follow the ratio, and round it up too. */
    private static int[] roundedUp(int width, int height, int tile) {
        double ratio = (double) width / height;
        if (width >= height) {
            width = ceilOf((double) width / tile) * tile;
            return new int[] {width, ceilOf((double) (int) (width / ratio) / tile) * tile};
        }
        height = ceilOf((double) height / tile) * tile;
        return new int[] {ceilOf((double) (int) (height * ratio) / tile) * tile, height};
    }
}
