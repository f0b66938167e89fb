package org.edgemllm.measure;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** The samples of one metric and what they say, as {@code edge-mllm bench} summarises them. */
final class Series {
    private final List<Double> values = new ArrayList<Double>();

    void add(double value) {
        values.add(value);
    }

    boolean isEmpty() {
        return values.isEmpty();
    }

    double median() {
        return quantile(sorted(), 0.5);
    }

    /** Number, median, quartiles, median deviation and extremes. */
    Map<String, Object> document() {
        double[] sorted = sorted();
        double median = quantile(sorted, 0.5);
        double[] deviations = new double[sorted.length];
        for (int i = 0; i < sorted.length; i++) {
            deviations[i] = Math.abs(sorted[i] - median);
        }
        Arrays.sort(deviations);
        Map<String, Object> out = new LinkedHashMap<String, Object>();
        out.put("n", (long) sorted.length);
        out.put("median", median);
        out.put("q1", quantile(sorted, 0.25));
        out.put("q3", quantile(sorted, 0.75));
        out.put("mad", quantile(deviations, 0.5));
        out.put("minimum", sorted[0]);
        out.put("maximum", sorted[sorted.length - 1]);
        return out;
    }

    private double[] sorted() {
        double[] sorted = new double[values.size()];
        for (int i = 0; i < sorted.length; i++) {
            sorted[i] = values.get(i);
        }
        Arrays.sort(sorted);
        return sorted;
    }

    /** Between neighbours in proportion, NumPy's default. */
    private static double quantile(double[] sorted, double share) {
        double place = share * (sorted.length - 1);
        int below = (int) place;
        double above = sorted[Math.min(below + 1, sorted.length - 1)];
        return sorted[below] + (above - sorted[below]) * (place - below);
    }
}
