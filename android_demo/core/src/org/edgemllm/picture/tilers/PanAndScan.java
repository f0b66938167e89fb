package org.edgemllm.picture.tilers;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

import org.edgemllm.picture.Step;
import org.edgemllm.picture.TilePlan;

/** The whole picture first; of a long one, equal pieces of its longer side after it, each stretched to a tile. */
public final class PanAndScan extends Tiler {
    private final int tile;
    private final int minCrop;
    private final int maxCrops;
    private final double minRatio;

    public PanAndScan(int tile, int minCrop, int maxCrops, double minRatio) {
        this.tile = tile;
        this.minCrop = minCrop;
        this.maxCrops = maxCrops;
        this.minRatio = minRatio;
    }

    @Override
    public String kind() {
        return "pan_and_scan";
    }

    @Override
    TilePlan cut(int width, int height) {
        List<Step> whole = Collections.singletonList(Step.resize(tile, tile));
        List<int[]> pieces = pieces(width, height);
        if (pieces.isEmpty()) {
            List<int[]> crops = Collections.singletonList(new int[] {0, 0, tile, tile});
            return new TilePlan(width, height, whole, crops, 1, 1);
        }
        boolean across = width >= height;
        int rows = across ? 1 : pieces.size();
        int cols = across ? pieces.size() : 1;
        TilePlan plan = new TilePlan(width, height, Collections.<Step>emptyList(), pieces, rows, cols);
        plan.tileSteps = whole;
        plan.globalSteps = whole;
        plan.globalFirst = true;
        return plan;
    }

    @Override
    List<Tiler> coarser() {
        List<Tiler> found = new ArrayList<Tiler>();
        for (int most = maxCrops; most > 1; most--) {
            found.add(new PanAndScan(tile, minCrop, most, minRatio));
        }
        found.add(new PanAndScan(tile, minCrop, 0, minRatio));
        return found;
    }

    /** The order of the float operations is the reference's. */
    private List<int[]> pieces(int width, int height) {
        int longer = Math.max(width, height);
        int shorter = Math.min(width, height);
        if (maxCrops < 2 || (double) longer / shorter < minRatio) {
            return Collections.emptyList();
        }
        int byRatio = (int) Math.floor((double) longer / shorter + 0.5);
        int count = Math.min((int) Math.floor((double) longer / minCrop), byRatio);
        count = Math.min(maxCrops, Math.max(2, count));
        int side = ceilOf((double) longer / count);
        if (Math.min(side, shorter) < minCrop || (long) side * (count - 1) >= longer) {
            return Collections.emptyList(); // too small, or the last one would be empty
        }
        TilePlan.checkCount(width, height, count);
        List<int[]> found = new ArrayList<int[]>();
        for (int number = 0; number < count; number++) {
            int start = side * number;
            int end = Math.min(side * (number + 1), longer);
            found.add(width >= height ? new int[] {start, 0, end, height} : new int[] {0, start, width, end});
        }
        return found;
    }
}
