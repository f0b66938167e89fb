package org.edgemllm.measure;

import java.util.LinkedHashMap;
import java.util.Map;

import org.edgemllm.errors.SettingException;

/** What is measured, with the defaults of {@code edge-mllm bench}. */
public final class BenchCase {
    private static final int MAX_SIDE = 16384;

    public int width = 1024;
    public int height = 768;
    /** Of the question, without template and picture. */
    public int promptTokens = 16;
    /** Generated, whatever the model says. */
    public int answerTokens = 64;
    /** Answers that do not count, and those that do. */
    public int warmup = 1;
    public int repeat = 5;

    /** Refuse values outside their ranges. */
    void check() {
        check("the picture's width", width, 1, MAX_SIDE);
        check("the picture's height", height, 1, MAX_SIDE);
        check("prompt_tokens", promptTokens, 1, 1000000);
        check("answer_tokens", answerTokens, 2, 1000000);
        check("warmup", warmup, 0, 1000);
        check("repeat", repeat, 1, 1000);
    }

    /** The case's entry of a result. */
    Map<String, Object> document(String model, int threads, boolean promptWeights) {
        Map<String, Object> out = new LinkedHashMap<String, Object>();
        out.put("model", model);
        out.put("engine", "onnx");
        out.put("threads", (long) threads);
        out.put("image_width", (long) width);
        out.put("image_height", (long) height);
        out.put("images", 1L);
        out.put("prompt_tokens", (long) promptTokens);
        out.put("answer_tokens", (long) answerTokens);
        out.put("mmproj", null);
        out.put("prompt_lookup", 0L);
        out.put("prompt_weights", promptWeights);
        out.put("reduction", null);
        return out;
    }

    private static void check(String name, int value, int low, int high) {
        if (value < low || value > high) {
            throw new SettingException(name + " is " + value + "; it must be between " + low + " and " + high);
        }
    }
}
