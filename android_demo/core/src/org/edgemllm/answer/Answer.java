package org.edgemllm.answer;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.edgemllm.json.JsonText;

/** One finished answer. */
public final class Answer {
    public final String text;
    /** "stop": the model ended its turn or a stop string was met; "length": a limit. */
    public final String finishReason;
    public final int promptTokens;
    public final int imageTokens;
    /** Tokens generated, the stop token included. */
    public final int completionTokens;
    public final List<Map<String, Object>> images;
    /** Seconds of the stages and tokens per second. */
    public final Map<String, Object> timings;
    public final Long peakRssBytes;
    public final Long peakAnonymousBytes;
    public final String model;

    Answer(String text, String finishReason, int[] counts, List<Map<String, Object>> images,
        Map<String, Object> timings, Long[] memory, String model) {
        this.text = text;
        this.finishReason = finishReason;
        this.promptTokens = counts[0];
        this.imageTokens = counts[1];
        this.completionTokens = counts[2];
        this.images = images;
        this.timings = timings;
        this.peakRssBytes = memory[0];
        this.peakAnonymousBytes = memory[1];
        this.model = model;
    }

    /** What {@code edge-mllm run --json} prints. */
    public Map<String, Object> document() {
        Map<String, Object> usage = new LinkedHashMap<String, Object>();
        usage.put("prompt_tokens", (long) promptTokens);
        usage.put("image_tokens", (long) imageTokens);
        usage.put("completion_tokens", (long) completionTokens);
        Map<String, Object> out = new LinkedHashMap<String, Object>();
        out.put("text", text);
        out.put("finish_reason", finishReason);
        out.put("usage", usage);
        out.put("images", images);
        out.put("timings", timings);
        out.put("peak_rss_bytes", peakRssBytes);
        out.put("peak_anonymous_bytes", peakAnonymousBytes);
        out.put("model", model);
        out.put("engine", "onnx");
        Map<String, Object> devices = new LinkedHashMap<String, Object>();
        for (String stage : new String[] {"vision", "prefill", "decode"}) {
            Map<String, Object> device = new LinkedHashMap<String, Object>();
            device.put("provider", "cpu");
            device.put("device", "CPU");
            devices.put(stage, device);
        }
        out.put("devices", devices);
        return out;
    }

    /** The same as text on one line. */
    public String json() {
        return JsonText.of(document(), 0);
    }
}
