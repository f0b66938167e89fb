package org.edgemllm.picture.tilers;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.TreeSet;

import org.edgemllm.picture.Step;
import org.edgemllm.picture.Stitch;
import org.edgemllm.picture.TilePlan;

/** Of a list of grids the one that keeps most of the picture, which is scaled into it or stretched onto it. */
public final class BestFitGrid extends Tiler {
    private final int tile;
    /** Rows and columns of each, in the order in which they are tried. */
    private final List<int[]> grids;
    private final double slack;
    private final boolean pads;
    private final Stitch stitch;

    public BestFitGrid(int tile, List<int[]> grids, double slack, boolean pads, Stitch stitch) {
        this.tile = tile;
        this.grids = grids;
        this.slack = slack;
        this.pads = pads;
        this.stitch = stitch;
    }

    @Override
    public String kind() {
        return "best_fit_grid";
    }

    @Override
    public Stitch stitch() {
        return stitch;
    }

    /** The grids, to be checked with the bundle. */
    public List<int[]> grids() {
        return grids;
    }

    @Override
    TilePlan cut(int width, int height) {
        List<Step> whole = Collections.singletonList(Step.resize(tile, tile));
        if (grids.isEmpty()) {
            List<int[]> crops = Collections.singletonList(new int[] {0, 0, tile, tile});
            TilePlan plan = new TilePlan(width, height, whole, crops, 1, 1);
            plan.stitch = stitch;
            return plan;
        }
        int[] best = bestGrid(width, height);
        int rows = best[0];
        int cols = best[1];
        TilePlan.checkCount(width, height, (long) rows * cols);
        List<Step> steps = steps(width, height, cols * tile, rows * tile);
        TilePlan plan = new TilePlan(width, height, steps, TilePlan.gridBoxes(rows, cols, tile, tile), rows, cols);
        plan.globalSteps = whole;
        plan.globalFirst = true;
        plan.globalFromPicture = true;
        plan.stitch = stitch;
        return plan;
    }

    @Override
    List<Tiler> coarser() {
        List<Tiler> found = new ArrayList<Tiler>();
        found.add(this);
        TreeSet<Integer> sizes = new TreeSet<Integer>();
        for (int[] grid : grids) {
            sizes.add(grid[0] * grid[1]);
        }
        for (int most : sizes.descendingSet()) {
            List<int[]> smaller = new ArrayList<int[]>();
            for (int[] grid : grids) {
                if (grid[0] * grid[1] < most) {
                    smaller.add(grid);
                }
            }
            found.add(new BestFitGrid(tile, smaller, slack, pads, stitch));
        }
        return found;
    }

    private List<Step> steps(int width, int height, int canvasWidth, int canvasHeight) {
        if (!pads) {
            return Collections.singletonList(Step.resize(canvasWidth, canvasHeight));
        }
        int[] scaled = scaledInto(width, height, canvasWidth, canvasHeight);
        int left = (canvasWidth - scaled[0]) / 2;
        int top = (canvasHeight - scaled[1]) / 2;
        Step pad = Step.pad(canvasWidth, canvasHeight, left, top, new int[] {0, 0, 0});
        return Arrays.asList(Step.resize(scaled[0], scaled[1]), pad);
    }

    /**
     * A grid takes the place of the best so far if it keeps more than {@code slack} times its pixels more, or if it
     * keeps less than {@code slack} times fewer (without slack: equally many) and wastes less.
     */
    private int[] bestGrid(int width, int height) {
        int[] best = grids.get(0);
        long most = 0;
        double leastWaste = Double.POSITIVE_INFINITY;
        for (int[] grid : grids) {
            double across = (double) (grid[1] * tile) / width;
            double scale = Math.min(across, (double) (grid[0] * tile) / height);
            long kept = Math.min((long) (width * scale) * (long) (height * scale), (long) width * height);
            long waste = (long) grid[0] * grid[1] * tile * tile - kept;
            boolean nearly = kept == most || most - kept < slack * most;
            if (kept - most > slack * most || (nearly && waste < leastWaste)) {
                best = grid;
                most = kept;
                leastWaste = waste;
            }
        }
        return best;
    }

    /** The largest size with the picture's ratio in the canvas, rounded up, in the reference's order of operations. */
    private static int[] scaledInto(int width, int height, int canvasWidth, int canvasHeight) {
        double across = (double) canvasWidth / width;
        double down = (double) canvasHeight / height;
        if (across < down) {
            return new int[] {canvasWidth, Math.min(ceilOf(height * across), canvasHeight)};
        }
        return new int[] {Math.min(ceilOf(width * down), canvasWidth), canvasHeight};
    }
}
