package org.edgemllm.picture;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

import org.edgemllm.errors.ImageException;

/**
 * How one picture becomes tiles. {@code steps} turn the picture into a canvas, {@code crops} cut the canvas row by row,
 * {@code tileSteps} are applied to every crop. With {@code globalSteps} a further tile shows the whole.
 */
public final class TilePlan {
    /** Most tiles of one picture; more is a damaged bundle, not a picture. */
    public static final int MAX_TILES = 1024;
    /** Most pixels that a picture is scaled to; 600 MB as RGB. */
    private static final long MAX_CANVAS = 200000000;

    public final int width;
    public final int height;
    public final List<Step> steps;
    /** left, top, right, bottom of each crop in pixels of the canvas; right and bottom are exclusive. */
    public final List<int[]> crops;
    public final int rows;
    public final int cols;
    public List<Step> tileSteps = Collections.emptyList();
    /** null where no tile shows the whole. */
    public List<Step> globalSteps;
    public boolean globalFirst;
    /** The global tile is made from the picture itself, not from the canvas. */
    public boolean globalFromPicture;
    /** Rows and columns of visual tokens, where the tower takes the whole picture at any size; else null. */
    public int[] tokenGrid;
    public Stitch stitch;

    public TilePlan(int width, int height, List<Step> steps, List<int[]> crops, int rows, int cols) {
        this.width = width;
        this.height = height;
        this.steps = steps;
        this.crops = crops;
        this.rows = rows;
        this.cols = cols;
    }

    public boolean hasGlobal() {
        return globalSteps != null;
    }

    /** Number of tiles, the global one included. */
    public int count() {
        return crops.size() + (hasGlobal() ? 1 : 0);
    }

    /** Visual tokens of the picture. */
    public int tokens(int tokensPerTile) {
        if (tokenGrid != null) {
            return tokenGrid[0] * tokenGrid[1];
        }
        if (stitch == null) {
            return count() * tokensPerTile;
        }
        if (count() == 1) {
            return tokensPerTile + (stitch.plain ? 0 : 1);
        }
        return (hasGlobal() ? tokensPerTile : 0) + tokenMap(tokensPerTile).tokens();
    }

    /** What is left of the map of all tiles' tokens when they are stitched. */
    public TokenMap tokenMap(int tokensPerTile) {
        Stitch how = stitch == null ? new Stitch(null, false) : stitch;
        return TokenMap.of(width, height, rows, cols, tokensPerTile, how);
    }

    public int tileWidth() {
        if (!tileSteps.isEmpty()) {
            return tileSteps.get(tileSteps.size() - 1).width;
        }
        return crops.get(0)[2] - crops.get(0)[0];
    }

    public int tileHeight() {
        if (!tileSteps.isEmpty()) {
            return tileSteps.get(tileSteps.size() - 1).height;
        }
        return crops.get(0)[3] - crops.get(0)[1];
    }

    /** Whether two plans of the same picture do the same. */
    public boolean same(TilePlan other) {
        return describe().equals(other.describe());
    }

    /** Boxes of a grid of tiles of width x height, row by row. */
    public static List<int[]> gridBoxes(int rows, int cols, int width, int height) {
        List<int[]> boxes = new ArrayList<int[]>();
        for (int row = 0; row < rows; row++) {
            for (int col = 0; col < cols; col++) {
                boxes.add(new int[] {col * width, row * height, (col + 1) * width, (row + 1) * height});
            }
        }
        return boxes;
    }

    /** Refuse a grid that no picture needs. */
    public static void checkCount(int width, int height, long tiles) {
        if (tiles > MAX_TILES) {
            throw ImageException.ofSize(width, height, "it would need " + tiles + " tiles, the limit is " + MAX_TILES);
        }
    }

    /** Refuse to scale a picture to a size that none needs. */
    public void checkSizes() {
        checkSizes(steps);
        checkSizes(tileSteps);
        checkSizes(globalSteps == null ? Collections.<Step>emptyList() : globalSteps);
    }

    private void checkSizes(List<Step> each) {
        for (Step step : each) {
            if (!step.pads && (step.width < 1 || step.height < 1 || (long) step.width * step.height > MAX_CANVAS)) {
                throw ImageException.ofSize(width, height, "scaled it would have " + step.width + "x" + step.height
                    + " pixels, the limit is " + MAX_CANVAS);
            }
        }
    }

    /** All that is done, as text: equal for plans that do the same. */
    public String describe() {
        StringBuilder text = new StringBuilder();
        text.append(rows).append('x').append(cols).append(globalFirst).append(globalFromPicture);
        describe(text, steps);
        describe(text, tileSteps);
        describe(text, globalSteps);
        for (int[] box : crops) {
            for (int side : box) {
                text.append(side).append(',');
            }
        }
        if (tokenGrid != null) {
            text.append(tokenGrid[0]).append('t').append(tokenGrid[1]);
        }
        return text.toString();
    }

    private static void describe(StringBuilder text, List<Step> steps) {
        text.append('[');
        for (Step step : steps == null ? Collections.<Step>emptyList() : steps) {
            text.append(step.pads ? 'p' : 'r').append(step.width).append('x').append(step.height);
            text.append('+').append(step.left).append('+').append(step.top).append(';');
        }
        text.append(steps == null ? "-]" : "]");
    }
}
