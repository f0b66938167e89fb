package org.edgemllm.answer;

import org.edgemllm.errors.SettingException;

/** How the next token is chosen; the defaults are greedy. */
public final class SamplingOptions {
    /** 0 takes the most likely token. */
    public double temperature;
    /** Draw among the k most likely tokens only; 0 is off. */
    public int topK;
    /** Draw among the smallest set of tokens whose probabilities reach this sum; 1 is off. */
    public double topP = 1.0;
    /** Drop tokens less likely than this share of the most likely one; 0 is off. */
    public double minP;
    /** Above 1 makes tokens that were said already less likely; 1 is off. */
    public double repetitionPenalty = 1.0;
    /** Same seed, same draw, also on other machines; null draws differently every time. */
    public Long seed;

    /** Refuse values outside their ranges. */
    void check() {
        check("temperature", temperature, 0.0, Double.MAX_VALUE, false);
        check("top_k", topK, 0, Double.MAX_VALUE, false);
        check("top_p", topP, 0.0, 1.0, true);
        check("min_p", minP, 0.0, 1.0, false);
        check("repetition_penalty", repetitionPenalty, 0.0, Double.MAX_VALUE, true);
        check("seed", seed == null ? 0 : seed, 0, Double.MAX_VALUE, false);
    }

    private static void check(String name, double value, double low, double high, boolean open) {
        if (!(value >= low && value <= high) || open && value == low) {
            String bound = (open ? "above " : "at least ") + (long) low;
            bound += high == 1.0 ? " and at most 1" : "";
            throw new SettingException(name + " is " + value + "; it must be " + bound);
        }
    }
}
