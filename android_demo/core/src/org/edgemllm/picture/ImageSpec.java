package org.edgemllm.picture;

import org.edgemllm.picture.tilers.Tiler;

/** How 8-bit RGB becomes the tower's input. */
public final class ImageSpec {
    public final Tiler tiler;
    /** Tiler of a picture that shares its conversation with others; null where that makes no difference. */
    public final Tiler several;
    public final Resampler resampler;
    /** What each 8-bit value becomes, 256 values for each channel. */
    private final float[] table = new float[3 * 256];

    public ImageSpec(Tiler tiler, Tiler several, String resample, double rescale, double[] mean, double[] std) {
        this.tiler = tiler;
        this.several = several;
        this.resampler = Resampler.named(resample);
        for (int channel = 0; channel < 3; channel++) {
            for (int value = 0; value < 256; value++) {
                float scaled = (float) (value * rescale);
                table[channel * 256 + value] = (scaled - (float) mean[channel]) / (float) std[channel];
            }
        }
    }

    /** The model's own tiler of a picture in a conversation that has so many. */
    public Tiler tilerFor(int pictures) {
        return several == null || pictures < 2 ? tiler : several;
    }

    /** What an 8-bit value of a channel becomes: scaled in double, rounded to float, then normalised in float. */
    float normalised(int channel, byte value) {
        return table[channel * 256 + (value & 255)];
    }
}
