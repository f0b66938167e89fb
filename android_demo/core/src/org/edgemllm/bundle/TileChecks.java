package org.edgemllm.bundle;

import org.edgemllm.errors.BundleException;
import org.edgemllm.errors.ImageException;
import org.edgemllm.picture.PatchInput;
import org.edgemllm.picture.TilePlan;
import org.edgemllm.picture.VisionSpec;
import org.edgemllm.picture.tilers.Tiler;

/** Whether a model's tiling goes with its tower. */
final class TileChecks {
    private TileChecks() {
    }

    static void check(String path, BundleSpec spec) {
        check(path, spec, spec.image.tiler);
        if (spec.image.several != null) {
            check(path, spec, spec.image.several);
        }
    }

    private static void check(String path, BundleSpec spec, Tiler tiler) {
        TilePlan plan;
        try {
            plan = tiler.plan(1024, 1024);
        } catch (ImageException error) {
            throw new BundleException(path, "bundle.json, image.tiler: " + error.getMessage());
        }
        VisionSpec vision = spec.vision;
        if (plan.stitch != null) {
            checkStitching(path, spec, plan);
        }
        PatchInput patches = vision.patches;
        if ((plan.tokenGrid == null) != (patches == null)) {
            throw new BundleException(path,
                "bundle.json, vision.patches does not go with the tiler '" + tiler.kind() + "'");
        }
        int width = plan.tileWidth();
        int height = plan.tileHeight();
        if (patches != null) {
            width /= plan.tokenGrid[1];
            height /= plan.tokenGrid[0];
            if (patches.patch * patches.merge != width) {
                throw new BundleException(path, "bundle.json, vision.patches makes a token of " + patches.merge
                    + " patches of " + patches.patch + " pixels, image.tiler has units of " + width);
            }
        }
        if (width != vision.tileWidth || height != vision.tileHeight) {
            throw new BundleException(path, "bundle.json, image.tiler cuts " + width + "x" + height
                + " tiles but vision takes " + vision.tileWidth + "x" + vision.tileHeight);
        }
    }

    private static void checkStitching(String path, BundleSpec spec, TilePlan plan) {
        int tokens = spec.vision.tokensPerTile;
        int root = (int) Math.round(Math.sqrt(tokens));
        if (root * root != tokens) {
            throw new BundleException(path, "bundle.json, vision.tokens_per_tile: " + tokens
                + " is no square number, which image.tiler.stitch needs");
        }
        if (!plan.stitch.plain && !spec.parts.containsKey("newline")) {
            throw new BundleException(path,
                "bundle.json names no newline, which image.tiler.stitch needs; export the model again");
        }
    }
}
