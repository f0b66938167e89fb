package org.edgemllm.picture.tilers;

import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;

import org.edgemllm.picture.Step;
import org.edgemllm.picture.TilePlan;

/** The grid whose ratio of sides is nearest to the picture's; the picture is stretched onto it, a thumbnail follows. */
public final class AspectGrid extends Tiler {
    private final int tile;
    private final int minTiles;
    private final int maxTiles;
    private final boolean thumbnail;

    public AspectGrid(int tile, int minTiles, int maxTiles, boolean thumbnail) {
        this.tile = tile;
        this.minTiles = minTiles;
        this.maxTiles = maxTiles;
        this.thumbnail = thumbnail;
    }

    @Override
    public String kind() {
        return "aspect_grid";
    }

    @Override
    TilePlan cut(int width, int height) {
        int[] best = bestGrid(width, height);
        int cols = best[0];
        int rows = best[1];
        TilePlan.checkCount(width, height, (long) rows * cols);
        List<Step> steps = Collections.singletonList(Step.resize(cols * tile, rows * tile));
        TilePlan plan = new TilePlan(width, height, steps, TilePlan.gridBoxes(rows, cols, tile, tile), rows, cols);
        boolean shown = thumbnail && rows * cols > 1;
        plan.globalSteps = shown ? Collections.singletonList(Step.resize(tile, tile)) : null;
        plan.globalFromPicture = true;
        return plan;
    }

    @Override
    List<Tiler> coarser() {
        List<Tiler> found = new ArrayList<Tiler>();
        for (int most = maxTiles; most > 0; most--) {
            found.add(new AspectGrid(tile, Math.min(minTiles, most), most, thumbnail));
        }
        return found;
    }

    /**
     * Columns and rows nearest to the picture's ratio. Of two at the same distance the later one is taken only if the
     * picture has more than half as many pixels as it; the order is by number of tiles, then by columns.
     */
    private int[] bestGrid(int width, int height) {
        double ratio = (double) width / height;
        double area = (double) width * height;
        int[] best = {1, 1};
        double least = Double.POSITIVE_INFINITY;
        for (int[] grid : grids()) {
            double distance = Math.abs(ratio - (double) grid[0] / grid[1]);
            if (distance < least) {
                best = grid;
                least = distance;
            } else if (distance == least && area > 0.5 * tile * tile * grid[0] * grid[1]) {
                best = grid;
            }
        }
        return best;
    }

    private List<int[]> grids() {
        List<int[]> grids = new ArrayList<int[]>();
        for (int cols = 1; cols <= maxTiles; cols++) {
            for (int rows = 1; rows <= maxTiles / cols; rows++) {
                if (cols * rows >= minTiles) {
                    grids.add(new int[] {cols, rows});
                }
            }
        }
        Collections.sort(grids, new Comparator<int[]>() {
            @Override
            public int compare(int[] one, int[] other) {
                return one[0] * one[1] - other[0] * other[1];
            }
        });
        return grids;
    }
}
