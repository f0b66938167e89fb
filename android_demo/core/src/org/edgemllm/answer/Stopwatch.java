package org.edgemllm.answer;

import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.Map;

/** Collects the seconds of an answer's stages while it is made. */
public final class Stopwatch {
    /** Parts of an answer whose time is taken. */
    public enum Stage { LOAD, PICTURE, PREPROCESS, VISION, PREFILL }

    private final long start = System.nanoTime();
    private final double loadBefore;
    private final Map<Stage, Long> spent = new EnumMap<Stage, Long>(Stage.class);
    private Stage running;
    private long since;
    private long firstToken;
    private long lastToken;
    private int tokens;
    /** Prompt tokens that were computed. */
    int prefilled;

    /** Prompt tokens that were computed, not taken from the cache. */
    public int prefilled() {
        return prefilled;
    }

    /** Start; {@code loadSeconds} is what loading took before this answer. */
    public Stopwatch(double loadSeconds) {
        loadBefore = loadSeconds;
        for (Stage stage : Stage.values()) {
            spent.put(stage, 0L);
        }
    }

    /** The time from now on belongs to a stage; null ends the one that runs. Return the one that ran. */
    public Stage enter(Stage stage) {
        long now = System.nanoTime();
        if (running != null) {
            spent.put(running, spent.get(running) + now - since);
        }
        Stage before = running;
        running = stage;
        since = now;
        return before;
    }

    /** Note that a token was chosen. */
    void token() {
        lastToken = System.nanoTime();
        firstToken = tokens == 0 ? lastToken : firstToken;
        tokens++;
    }

    /** The timings up to the last token, as {@code run --json} has them. */
    public Map<String, Object> timings() {
        double decode = tokens == 0 ? 0.0 : seconds(lastToken - firstToken);
        double ttft = tokens == 0 ? 0.0 : seconds(firstToken - start - spent.get(Stage.LOAD));
        Map<String, Object> out = new LinkedHashMap<String, Object>();
        out.put("load_s", loadBefore + seconds(spent.get(Stage.LOAD)));
        out.put("preprocess_s", seconds(spent.get(Stage.PICTURE) + spent.get(Stage.PREPROCESS)));
        out.put("vision_s", seconds(spent.get(Stage.VISION)));
        out.put("prefill_s", seconds(spent.get(Stage.PREFILL)));
        out.put("ttft_s", ttft);
        out.put("decode_s", decode);
        out.put("prefill_tps", perSecond(prefilled, seconds(spent.get(Stage.PREFILL))));
        out.put("decode_tps", perSecond(tokens - 1, decode));
        out.put("grammar_s", 0.0);
        out.put("probe_s", 0.0);
        out.put("picture_s", seconds(spent.get(Stage.PICTURE)));
        return out;
    }

    private static double seconds(long nanos) {
        return nanos / 1e9;
    }

    private static double perSecond(int count, double seconds) {
        return count > 0 && seconds > 0 ? count / seconds : 0.0;
    }
}
