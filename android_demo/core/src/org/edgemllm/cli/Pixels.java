package org.edgemllm.cli;

import java.nio.FloatBuffer;

import org.edgemllm.picture.ImageSpec;
import org.edgemllm.picture.Patches;
import org.edgemllm.picture.Rgb;
import org.edgemllm.picture.TilePlan;
import org.edgemllm.picture.Tiles;
import org.edgemllm.picture.VisionSpec;

/** All of what the tower gets for one picture, in one array. */
final class Pixels {
    final float[] values;
    /** As NumPy writes it. */
    final String shape;

    Pixels(Rgb picture, TilePlan plan, ImageSpec image, VisionSpec vision) {
        Tiles tiles = new Tiles(picture, plan, image);
        if (vision.patches == null) {
            Rgb first = tiles.tile(0);
            int one = 3 * first.width * first.height;
            values = new float[tiles.count() * one];
            for (int i = 0; i < tiles.count(); i++) {
                tiles.put(i, FloatBuffer.wrap(values, i * one, one));
            }
            shape = "(" + tiles.count() + ", 3, " + first.height + ", " + first.width + ")";
        } else {
            Patches patches = new Patches(vision.patches, plan.tokenGrid);
            values = new float[patches.count() * vision.patches.values()];
            patches.put(tiles.tile(0), image, FloatBuffer.wrap(values));
            shape = "(" + patches.count() + ", " + vision.patches.values() + ")";
        }
    }
}
