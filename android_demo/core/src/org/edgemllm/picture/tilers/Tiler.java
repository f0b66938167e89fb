package org.edgemllm.picture.tilers;

import java.util.List;

import org.edgemllm.errors.ImageException;
import org.edgemllm.picture.Stitch;
import org.edgemllm.picture.TilePlan;

/** One way to cut a picture: a mechanism with its numbers. Integers in, integers out, no pixels. */
public abstract class Tiler {
    /** Longest side, in pixels, that a plan is made for. */
    public static final int MAX_SIDE = 65536;
    /** Most visual tokens of a picture at low detail where there are no tiles. */
    public static final int LOW_DETAIL_TOKENS = 256;

    /** The mechanism's name in bundle.json. */
    public abstract String kind();

    /** The plan of a picture whose sides have been checked. */
    abstract TilePlan cut(int width, int height);

    /** The tiler itself, then coarser settings that the model's own processor offers, ending with the coarsest. */
    abstract List<Tiler> coarser();

    /** How tokens are put together; null for tile after tile. */
    public Stitch stitch() {
        return null;
    }

    /** Plan the tiles of a picture of this size in pixels. */
    public final TilePlan plan(int width, int height) {
        if (width < 1 || height < 1) {
            throw ImageException.ofSize(width, height, "it has no pixels");
        }
        if (Math.max(width, height) > MAX_SIDE) {
            throw ImageException.ofSize(width, height, "no side may be longer than " + MAX_SIDE + " pixels");
        }
        TilePlan plan = cut(width, height);
        plan.checkSizes();
        return plan;
    }

    /** This tiler made coarser until a picture needs at most so many tokens; the coarsest where none fits. */
    public final Tiler fitTokens(int width, int height, int maxTokens, int tokensPerTile) {
        Tiler candidate = this;
        for (Tiler each : coarser()) {
            candidate = each;
            if (each.plan(width, height).tokens(tokensPerTile) <= maxTokens) {
                break;
            }
        }
        return candidate;
    }

    /** One tile; without tiles, at most {@link #LOW_DETAIL_TOKENS} visual tokens. */
    public Tiler lowDetail(int width, int height) {
        Tiler candidate = this;
        for (Tiler each : coarser()) {
            candidate = each;
            if (each.plan(width, height).count() <= 1) {
                break;
            }
        }
        return candidate;
    }

    /** The least whole number not below {@code value / by}, for positive whole numbers, as Python's ceil of floats. */
    static int ceilOf(double value) {
        return (int) Math.ceil(value);
    }
}
