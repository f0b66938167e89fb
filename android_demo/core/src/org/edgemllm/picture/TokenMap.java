package org.edgemllm.picture;

import java.math.BigDecimal;
import java.math.RoundingMode;

/**
 * The map that the tokens of a grid of tiles make together: the window of it that shows the picture, and the size that
 * window is brought to. The order of the float operations is the reference's: another lands on another integer for
 * some sizes, and then the prompt has another length.
 */
public final class TokenMap {
    private static final double TOO_MANY = 1.1;

    public final int top;
    public final int left;
    public final int rows;
    public final int cols;
    public final int newRows;
    public final int newCols;
    /** Whether a newline ends every row. */
    public final boolean newlines;

    private TokenMap(int top, int left, int rows, int cols, int newRows, int newCols, boolean newlines) {
        this.top = top;
        this.left = left;
        this.rows = rows;
        this.cols = cols;
        this.newRows = newRows;
        this.newCols = newCols;
        this.newlines = newlines;
    }

    /** Whether the window gets another size. */
    public boolean shrunk() {
        return rows != newRows || cols != newCols;
    }

    /** Tokens of the map, the newline of every row included. */
    public int tokens() {
        return newRows * (newCols + (newlines ? 1 : 0));
    }

    /** Cut the padding off, then shrink what is still too large; a plain map stays whole. */
    public static TokenMap of(int width, int height, int gridRows, int gridCols, int tokensPerTile, Stitch stitch) {
        int side = squareRoot(tokensPerTile);
        int rows = gridRows * side;
        int cols = gridCols * side;
        if (stitch.plain) {
            return new TokenMap(0, 0, rows, cols, rows, cols, false);
        }
        int top = 0;
        int left = 0;
        if ((double) width / height > (double) cols / rows) {
            top = Math.floorDiv(rows - (int) sevenDigits(height * ((double) cols / width)), 2);
        } else {
            left = Math.floorDiv(cols - (int) sevenDigits(width * ((double) rows / height)), 2);
        }
        rows -= 2 * top;
        cols -= 2 * left;
        int newRows = rows;
        int newCols = cols;
        if (stitch.maxTiles != null) {
            double times = Math.sqrt((double) ((long) rows * cols) / ((long) stitch.maxTiles * side * side));
            if (times > TOO_MANY) {
                newRows = (int) floorDivide(rows, times);
                newCols = (int) floorDivide(cols, times);
            }
        }
        return new TokenMap(top, left, rows, cols, newRows, newCols, true);
    }

    /** The whole part of a square root. */
    static int squareRoot(int value) {
        int root = (int) Math.sqrt((double) value);
        while ((long) root * root > value) {
            root--;
        }
        while ((long) (root + 1) * (root + 1) <= value) {
            root++;
        }
        return root;
    }

    /** Python's {@code round(value, 7)}. */
    private static double sevenDigits(double value) {
        return new BigDecimal(value).setScale(7, RoundingMode.HALF_EVEN).doubleValue();
    }

    /** Python's {@code value // by} for positive floats. */
    private static double floorDivide(double value, double by) {
        double quotient = (value - value % by) / by;
        double floor = Math.floor(quotient);
        return quotient - floor > 0.5 ? floor + 1 : floor;
    }
}
