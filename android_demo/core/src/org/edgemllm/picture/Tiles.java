package org.edgemllm.picture;

import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.List;

/** The tiles of one picture as 8-bit RGB; they become floats one at a time, when the tower takes them. */
public final class Tiles {
    private final List<Rgb> tiles = new ArrayList<Rgb>();
    private final ImageSpec image;

    /** Carry out a plan. */
    public Tiles(Rgb picture, TilePlan plan, ImageSpec image) {
        this.image = image;
        Rgb canvas = apply(picture, plan.steps);
        for (int[] box : plan.crops) {
            tiles.add(apply(canvas.crop(box[0], box[1], box[2], box[3]), plan.tileSteps));
        }
        if (plan.globalSteps != null) {
            Rgb whole = apply(plan.globalFromPicture ? picture : canvas, plan.globalSteps);
            tiles.add(plan.globalFirst ? 0 : tiles.size(), whole);
        }
    }

    public int count() {
        return tiles.size();
    }

    /** One tile as 8-bit RGB. */
    public Rgb tile(int number) {
        return tiles.get(number);
    }

    /** Write one tile's pixels [3, height, width], normalised. */
    public void put(int number, FloatBuffer out) {
        Rgb tile = tiles.get(number);
        float[] line = new float[tile.width];
        for (int channel = 0; channel < 3; channel++) {
            for (int y = 0; y < tile.height; y++) {
                int at = y * tile.width * 3 + channel;
                for (int x = 0; x < tile.width; x++, at += 3) {
                    line[x] = image.normalised(channel, tile.data[at]);
                }
                out.put(line);
            }
        }
    }

    private Rgb apply(Rgb picture, List<Step> steps) {
        for (Step step : steps) {
            picture = step.pads ? picture.padded(step) : image.resampler.resize(picture, step.width, step.height);
        }
        return picture;
    }
}
