package org.edgemllm.measure;

import java.util.Random;

import org.edgemllm.picture.Resampler;
import org.edgemllm.picture.Rgb;

/** Pictures that compress like photographs: soft gradients, edges and a little noise. */
public final class SamplePicture {
    private static final int COARSE = 64;
    private static final int EDGES = 12;
    private static final int NOISE = 6;

    private SamplePicture() {
    }

    /** Writes JPEG files, which every platform does with a class of its own. */
    public interface Jpeg {
        byte[] encode(Rgb picture) throws Exception;
    }

    /** Another seed gives another picture, so that nothing that was computed for the last one can be used again. */
    public static Rgb of(int width, int height, long seed) {
        Random random = new Random(seed);
        Rgb coarse = new Rgb(Math.max(2, width / COARSE), Math.max(2, height / COARSE));
        random.nextBytes(coarse.data);
        Rgb soft = Resampler.named("bicubic").resize(coarse, width, height);
        Rgb out = new Rgb(width, height, soft.data.clone());
        for (int i = 0; i < EDGES; i++) {
            edge(out, random);
        }
        for (int i = 0; i < out.data.length; i++) {
            int value = (out.data[i] & 255) + random.nextInt(2 * NOISE + 1) - NOISE;
            out.data[i] = (byte) Math.max(0, Math.min(255, value));
        }
        return out;
    }

    /** A rectangle of one colour. */
    private static void edge(Rgb out, Random random) {
        int left = random.nextInt(out.width);
        int top = random.nextInt(out.height);
        int right = Math.min(out.width, left + Math.max(1, out.width / 6));
        int bottom = Math.min(out.height, top + Math.max(1, out.height / 8));
        byte[] colour = new byte[3];
        random.nextBytes(colour);
        for (int y = top; y < bottom; y++) {
            for (int x = left; x < right; x++) {
                System.arraycopy(colour, 0, out.data, (y * out.width + x) * 3, 3);
            }
        }
    }
}
