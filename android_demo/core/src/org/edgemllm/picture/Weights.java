package org.edgemllm.picture;

/** For one axis of a resize: which old pixels each new one is made of and with which weights, as Pillow has them. */
final class Weights {
    /** Weights are whole numbers of 1 / 2^22, so that sums of 8-bit values fit 32 bits. */
    static final int PRECISION_BITS = 32 - 8 - 2;

    /** The first old pixel of each new one. */
    final int[] first;
    /** How many old pixels each new one has. */
    final int[] count;
    /** {@code size} weights for each new pixel. */
    final int[] weights;
    /** Room for the weights of one new pixel. */
    final int size;

    Weights(int inSize, int outSize, Filter filter) {
        double scale = (double) (float) inSize / outSize;
        double filterScale = Math.max(scale, 1.0);
        double support = filter.support * filterScale;
        size = (int) Math.ceil(support) * 2 + 1;
        first = new int[outSize];
        count = new int[outSize];
        weights = new int[Math.multiplyExact(outSize, size)];
        double[] row = new double[size];
        double inverse = 1.0 / filterScale;
        for (int out = 0; out < outSize; out++) {
            double center = 0.0 + (out + 0.5) * scale;
            int from = Math.max((int) (center - support + 0.5), 0);
            int number = Math.min((int) (center + support + 0.5), inSize) - from;
            first[out] = from;
            count[out] = number;
            fill(row, number, from, center, inverse, filter);
            for (int i = 0; i < number; i++) {
                weights[out * size + i] = fixed(row[i]);
            }
        }
    }

    private static void fill(double[] row, int number, int from, double center, double inverse, Filter filter) {
        double sum = 0.0;
        for (int i = 0; i < number; i++) {
            row[i] = filter.at((i + from - center + 0.5) * inverse);
            sum += row[i];
        }
        for (int i = 0; i < number && sum != 0.0; i++) {
            row[i] /= sum;
        }
    }

    private static int fixed(double weight) {
        double scaled = weight * (1 << PRECISION_BITS);
        return (int) (weight < 0 ? -0.5 + scaled : 0.5 + scaled);
    }
}
