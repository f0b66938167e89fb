package org.edgemllm.answer;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.edgemllm.bundle.BundleSpec;
import org.edgemllm.bundle.Part;
import org.edgemllm.errors.PromptException;
import org.edgemllm.picture.VisionSpec;
import org.edgemllm.prompt.PromptIds;

/**
 * How much memory an answer will take, on the safe side, known before anything is encoded. The factors are those of the
 * Python runtime's estimate, where they were measured (edge_mllm/costs/memory.py).
 */
public final class MemoryPlan {
    private static final int PATCH = 14;
    private static final int CELLS = 256;
    private static final int CHUNK = 512;

    private final BundleSpec spec;
    private final Request request;
    /** Bytes of tiles and activations of the tower, of its weights, and of what loading them takes for a moment. */
    public final long towerRun;
    public final long towerWeights;
    public final long towerLoading;
    public final long decoderWeights;
    public final long cache;
    public final long prefill;
    public final long now;
    private final boolean inTurn;
    private final int promptTokens;

    MemoryPlan(Model model, PromptIds prompt, List<Picture> pictures, Request request) {
        this.spec = model.bundle.spec;
        this.request = request;
        this.inTurn = model.inTurn();
        this.promptTokens = prompt.ids.length;
        Long resident = Memory.resident();
        now = resident == null ? 100L << 20 : resident;
        long run = 0;
        boolean waiting = false;
        for (Picture picture : pictures) {
            if (!picture.encoded()) {
                waiting = true;
                run = Math.max(run, towerRun(picture));
            }
        }
        towerRun = run;
        Part vision = spec.parts.get("vision");
        boolean loads = waiting && !model.towerLoaded();
        towerWeights = loads ? (long) ((vision.precision.equals("fp16") ? 2.2 : 1.2) * vision.bytes) : 0;
        towerLoading = loads ? (long) (0.8 * vision.bytes) : 0;
        decoderWeights = model.decoder() == null ? (long) (1.1 * (bytes("decoder_onnx") + bytes("decoder_onnx_data")))
            : 0;
        int context = spec.decoder.contextLength;
        int cells = Math.min((Math.min(promptTokens + request.maxNewTokens, context) + CELLS - 1) / CELLS * CELLS,
            context);
        int there = model.decoder() == null ? 0 : model.decoder().cells();
        cache = Math.max(0, cells - there) * cellBytes(model);
        prefill = prefillRun();
    }

    /** The most at one time. */
    public long peak() {
        long tower = towerWeights + Math.max(towerRun, towerLoading);
        long language = decoderWeights + cache + prefill;
        return now + (inTurn ? Math.max(tower, language)
            : Math.max(tower, towerWeights + towerRun + language));
    }

    /** Refuse an answer that would take more than the request allows. */
    void check() {
        if (request.maxMemory != null && peak() > request.maxMemory) {
            throw new PromptException("the answer would take " + megabytes(peak()) + " of memory (" + promptTokens
                + " prompt tokens), max_memory allows " + megabytes(request.maxMemory)
                + "; use low detail, fewer pictures, low memory or a smaller model");
        }
    }

    /** All of it, in bytes. */
    public Map<String, Object> document() {
        Map<String, Object> out = new LinkedHashMap<String, Object>();
        out.put("now_bytes", now);
        out.put("decoder_bytes", decoderWeights);
        out.put("tower_bytes", towerWeights);
        out.put("tower_run_bytes", towerRun);
        out.put("cache_bytes", cache);
        out.put("prefill_bytes", prefill);
        out.put("loading_bytes", towerLoading);
        out.put("peak_bytes", peak());
        return out;
    }

    private long towerRun(Picture picture) {
        VisionSpec vision = spec.vision;
        long hidden = shape("tower", "hidden", 1152);
        long wide = shape("tower", "n_ff", 4304);
        long heads = (hidden + 63) / 64;
        long patches;
        long values;
        if (vision.patches == null) {
            values = (long) picture.plan.count() * 3 * vision.tileWidth * vision.tileHeight;
            patches = shape("tower", "patches", vision.tileWidth / PATCH * (vision.tileHeight / PATCH));
        } else {
            patches = (long) picture.plan.tokens(1) * vision.patches.merge * vision.patches.merge;
            values = patches * vision.patches.values();
        }
        return 4 * (values + patches * (3 * hidden + wide) + heads * patches * patches);
    }

    private long prefillRun() {
        long rows = Math.min(CHUNK, promptTokens);
        long width = spec.decoder.embeddingSize;
        long wide = shape("decoder", "n_ff", (int) (4 * width));
        long heads = shape("decoder", "n_head", (int) ((width + 63) / 64));
        return 4 * rows * (4 * width + 3 * wide + heads * promptTokens);
    }

    private long cellBytes(Model model) {
        if (model.decoder() != null) {
            return model.decoder().cellBytes();
        }
        long heads = shape("decoder", "n_kv_head", 0);
        long width = shape("decoder", "head_dim", 0);
        long values = heads * width > 0 ? heads * width : spec.decoder.embeddingSize;
        return 2L * spec.decoder.layers * values * 4;
    }

    private long shape(String part, String name, long otherwise) {
        Object found = spec.shape == null ? null : spec.shape.get(part);
        Object value = found instanceof Map ? ((Map<?, ?>) found).get(name) : null;
        return value instanceof Long ? (Long) value : otherwise;
    }

    private long bytes(String part) {
        Part found = spec.parts.get(part);
        return found == null ? 0 : found.bytes;
    }

    private static String megabytes(long bytes) {
        return Math.round(bytes / 1e6) + " MB";
    }
}
