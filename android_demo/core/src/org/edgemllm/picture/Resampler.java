package org.edgemllm.picture;

import java.util.Locale;

/**
 * Resizes as Pillow 13 does, bit for bit: two passes with weights of 22 bits, values rounded to 8 bits between them, and
 * rows before columns only where the height does not shrink by more than twice what the width does.
 */
public final class Resampler {
    private final Filter filter;

    private Resampler(Filter filter) {
        this.filter = filter;
    }

    /** By the filter's name in bundle.json: nearest, box, bilinear, hamming, bicubic or lanczos. */
    public static Resampler named(String name) {
        return new Resampler(name.equals("nearest") ? null : Filter.valueOf(name.toUpperCase(Locale.ROOT)));
    }

    /** The picture at another size. */
    public Rgb resize(Rgb picture, int width, int height) {
        if (picture.width == width && picture.height == height) {
            return picture;
        }
        if (filter == null) {
            return nearest(picture, width, height);
        }
        int shorter = picture.height - height;
        boolean columnsFirst = shorter > 0 && shorter > (picture.width - width) * 2;
        if (columnsFirst) {
            return horizontal(vertical(picture, height), width);
        }
        // Only the rows that the second pass reads; with the whole picture those are all of them.
        return vertical(horizontal(picture, width), height);
    }

    private Rgb horizontal(Rgb in, int width) {
        if (in.width == width) {
            return in;
        }
        Weights weights = new Weights(in.width, width, filter);
        Rgb out = new Rgb(width, in.height);
        byte[] from = in.data;
        int[] table = weights.weights;
        int place = 0;
        for (int y = 0; y < in.height; y++) {
            int line = y * in.width * 3;
            for (int x = 0; x < width; x++) {
                int red = 1 << (Weights.PRECISION_BITS - 1);
                int green = red;
                int blue = red;
                int at = line + weights.first[x] * 3;
                int end = x * weights.size + weights.count[x];
                for (int i = x * weights.size; i < end; i++, at += 3) {
                    int weight = table[i];
                    red += (from[at] & 255) * weight;
                    green += (from[at + 1] & 255) * weight;
                    blue += (from[at + 2] & 255) * weight;
                }
                out.data[place++] = clip(red);
                out.data[place++] = clip(green);
                out.data[place++] = clip(blue);
            }
        }
        return out;
    }

    private Rgb vertical(Rgb in, int height) {
        if (in.height == height) {
            return in;
        }
        Weights weights = new Weights(in.height, height, filter);
        int line = in.width * 3;
        Rgb out = new Rgb(in.width, height);
        int[] sums = new int[line];
        for (int y = 0; y < height; y++) {
            java.util.Arrays.fill(sums, 1 << (Weights.PRECISION_BITS - 1));
            for (int i = 0; i < weights.count[y]; i++) {
                int weight = weights.weights[y * weights.size + i];
                int at = (weights.first[y] + i) * line;
                for (int x = 0; x < line; x++) {
                    sums[x] += (in.data[at + x] & 255) * weight;
                }
            }
            for (int x = 0; x < line; x++) {
                out.data[y * line + x] = clip(sums[x]);
            }
        }
        return out;
    }

    private static byte clip(int sum) {
        int value = sum >> Weights.PRECISION_BITS;
        return (byte) (value < 0 ? 0 : value > 255 ? 255 : value);
    }

    /** Places are added up, not multiplied, as in Pillow's ImagingScaleAffine. */
    private static Rgb nearest(Rgb in, int width, int height) {
        int[] columns = places(in.width, width);
        int[] rows = places(in.height, height);
        Rgb out = new Rgb(width, height);
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width && rows[y] >= 0; x++) {
                if (columns[x] >= 0) {
                    System.arraycopy(in.data, (rows[y] * in.width + columns[x]) * 3, out.data, (y * width + x) * 3, 3);
                }
            }
        }
        return out;
    }

    /** The old pixel of each new one; -1 where rounding leads outside. */
    private static int[] places(int inSize, int outSize) {
        double step = (double) (float) inSize / outSize;
        double place = 0.0 + step * 0.5;
        int[] found = new int[outSize];
        for (int i = 0; i < outSize; i++) {
            int at = place < 0.0 ? -1 : (int) place;
            found[i] = at < inSize ? at : -1;
            place += step;
        }
        return found;
    }
}
