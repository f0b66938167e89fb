package org.edgemllm.answer;

import java.util.Arrays;
import java.util.HashSet;
import java.util.Set;

/**
 * Logits to token id: penalty, temperature, top-k, top-p, min-p, a seeded draw, in the order and with the meaning of the
 * Python runtime.
 */
final class Sampler {
    private final SamplingOptions options;
    private final Pcg64 random;
    private final Set<Integer> said = new HashSet<Integer>();

    /** {@code prompt}: ids that the repetition penalty counts as already said. */
    Sampler(SamplingOptions options, int[] prompt) {
        options.check();
        this.options = options;
        this.random = new Pcg64(options.seed == null ? System.nanoTime() & Long.MAX_VALUE : options.seed);
        for (int id : prompt) {
            said.add(id);
        }
    }

    /** Choose the next token and remember it. */
    int choose(float[] logits) {
        if (options.repetitionPenalty != 1.0) {
            penalise(logits);
        }
        int token = options.temperature == 0.0 ? best(logits) : draw(logits);
        said.add(token);
        return token;
    }

    private static int best(float[] logits) {
        int best = 0;
        for (int i = 1; i < logits.length; i++) {
            best = logits[i] > logits[best] ? i : best;
        }
        return best;
    }

    private void penalise(float[] logits) {
        float penalty = (float) options.repetitionPenalty;
        for (int id : said) {
            logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
        }
    }

    private int draw(float[] logits) {
        int[] ids = byLikelihood(logits);
        double[] weights = new double[ids.length];
        double top = logits[ids[0]] / options.temperature;
        double total = 0.0;
        for (int i = 0; i < ids.length; i++) {
            weights[i] = Math.exp(logits[ids[i]] / options.temperature - top);
            total += weights[i];
        }
        int kept = kept(weights, total);
        double[] edges = new double[kept];
        double sum = 0.0;
        for (int i = 0; i < kept; i++) {
            sum += weights[i];
            edges[i] = sum;
        }
        double drawn = random.next() * sum;
        int place = 0;
        while (place < kept - 1 && edges[place] <= drawn) {
            place++;
        }
        return ids[place];
    }

    /** Ids, the most likely first, of equals the smaller first; the k first where top-k is on. */
    private int[] byLikelihood(float[] logits) {
        long[] order = new long[logits.length];
        for (int i = 0; i < order.length; i++) {
            int bits = Float.floatToIntBits(logits[i] + 0.0f); // minus zero is zero
            int ascending = bits < 0 ? ~bits ^ Integer.MIN_VALUE : bits;
            order[i] = (long) ~ascending << 32 | i;
        }
        Arrays.sort(order);
        int count = options.topK > 0 ? Math.min(options.topK, order.length) : order.length;
        int[] ids = new int[count];
        for (int i = 0; i < count; i++) {
            ids[i] = (int) order[i];
        }
        return ids;
    }

    /** How many of the most likely tokens the filters leave. */
    private int kept(double[] weights, double total) {
        int count = weights.length;
        if (options.topP < 1.0) {
            double before = 0.0;
            int kept = 0;
            while (kept < count && before < options.topP * total) {
                before += weights[kept++];
            }
            count = kept;
        }
        while (options.minP > 0.0 && count > 1 && weights[count - 1] < options.minP * weights[0]) {
            count--;
        }
        return count;
    }
}
