package org.edgemllm.measure;

import java.io.File;
import java.io.IOException;
import java.text.SimpleDateFormat;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TimeZone;

import org.edgemllm.answer.Answer;
import org.edgemllm.answer.Budget;
import org.edgemllm.answer.Listener;
import org.edgemllm.answer.Memory;
import org.edgemllm.answer.Model;
import org.edgemllm.answer.Picture;
import org.edgemllm.answer.Request;
import org.edgemllm.answer.Stopwatch;
import org.edgemllm.bundle.Bundle;
import org.edgemllm.bundle.Part;
import org.edgemllm.errors.EdgeMllmException;
import org.edgemllm.errors.EngineException;
import org.edgemllm.errors.PromptException;
import org.edgemllm.picture.Rgb;
import org.edgemllm.picture.file.PictureFile;
import org.edgemllm.prompt.Message;

/**
 * Answers of a fixed length about pictures that were never seen, timed stage by stage; the result is a file of
 * {@code edge-mllm bench}, which {@code edge-mllm bench report} merges with others.
 */
public final class Bench {
    private static final String SCHEMA = "edge-mllm-bench/1";
    private static final int SECOND = 500000;

    private final Model model;
    private final BenchCase wanted;
    private final PictureFile files;
    private final SamplePicture.Jpeg jpeg;
    private final Questions questions;
    private final Map<String, Series> series = new LinkedHashMap<String, Series>();
    private final List<Object> samples = new ArrayList<Object>();
    private Answer last;

    /** Hears of answers that are done. */
    public interface Progress {
        /** Return false to stop here. */
        boolean done(int answers, int all);
    }

    /** {@code formats} reads what {@code jpeg} writes. */
    public Bench(Model model, BenchCase wanted, PictureFile.OtherFormats formats, SamplePicture.Jpeg jpeg) {
        wanted.check();
        this.model = model;
        this.wanted = wanted;
        this.files = new PictureFile(formats);
        this.jpeg = jpeg;
        this.questions = new Questions(model, wanted.promptTokens);
        for (String name : new String[] {"image_decode", "tiling", "vision", "prefill", "decode", "end_to_end", "ttft",
            "prefill_tps", "decode_tps", "residual", "second_ttft", "vision_per_tile", "load_warm"}) {
            series.put(name, new Series());
        }
    }

    /** Measure, and return the whole result. */
    public Map<String, Object> run(Machine machine, Progress progress) {
        model.loadTower();
        Map<String, Object> loaded = Memory.now();
        int all = wanted.warmup + wanted.repeat;
        for (int number = 0; number < all; number++) {
            Map<String, Object> sample = sample(number);
            if (number >= wanted.warmup) {
                samples.add(sample);
                note(sample);
            }
            if (!progress.done(number + 1, all)) {
                throw new EdgeMllmException("the measurement was stopped");
            }
        }
        series.get("load_warm").add(model.loadSeconds());
        Map<String, Object> out = new LinkedHashMap<String, Object>();
        SimpleDateFormat format = new SimpleDateFormat("yyyy-MM-dd'T'HH:mm:ss'+00:00'", Locale.ROOT);
        format.setTimeZone(TimeZone.getTimeZone("UTC"));
        out.put("schema", SCHEMA);
        out.put("created", format.format(new Date()));
        out.put("machine", machine.document());
        out.put("warmup", (long) wanted.warmup);
        out.put("repeat", (long) wanted.repeat);
        out.put("meters_refused", new ArrayList<Object>());
        out.put("runs", Collections.singletonList(entry(loaded)));
        out.put("comparisons", new ArrayList<Object>());
        return out;
    }

    private Map<String, Object> sample(int number) {
        byte[] file = file(number);
        Request request = new Request();
        request.maxNewTokens = wanted.answerTokens;
        request.ignoresEnd = true;
        String question = questions.of(number);
        long start = System.nanoTime();
        Rgb rgb = files.decode(file, "of the measurement");
        double decoded = (System.nanoTime() - start) / 1e9;
        Stopwatch watch = model.startWatch();
        List<Picture> pictures = model.pictures(Collections.singletonList(rgb), new Budget("auto", null));
        last = model.answer(Message.question(null, question, 1), pictures, request, watch, false, Listener.NOBODY);
        double whole = (System.nanoTime() - start) / 1e9;
        if (last.completionTokens != wanted.answerTokens) {
            throw new PromptException("the answer has " + last.completionTokens + " tokens instead of "
                + wanted.answerTokens + "; the context may be too small for such a picture or answer");
        }
        Map<String, Object> stages = new LinkedHashMap<String, Object>();
        stages.put("image_decode", decoded);
        for (String stage : new String[] {"tiling", "vision", "prefill", "decode"}) {
            stages.put(stage, seconds(last, stage.equals("tiling") ? "preprocess_s" : stage + "_s"));
        }
        Map<String, Object> out = new LinkedHashMap<String, Object>();
        out.put("stages", stages);
        out.put("end_to_end", whole);
        out.put("ttft", decoded + seconds(last, "ttft_s"));
        out.put("second_ttft", second(number, pictures));
        out.put("prefill_tps", last.timings.get("prefill_tps"));
        out.put("decode_tps", last.timings.get("decode_tps"));
        out.put("reused_tokens", (long) last.promptTokens - watch.prefilled());
        out.put("energy", new ArrayList<Object>());
        out.put("celsius", null);
        out.put("throttled", new ArrayList<Object>());
        return out;
    }

    /** Seconds to the first token of another question about the same pictures. */
    private double second(int number, List<Picture> pictures) {
        Request request = new Request();
        request.maxNewTokens = 1;
        request.ignoresEnd = true;
        List<Message> messages = Message.question(null, questions.of(number + SECOND), 1);
        Stopwatch watch = model.startWatch();
        return seconds(model.answer(messages, pictures, request, watch, false, Listener.NOBODY), "ttft_s");
    }

    private byte[] file(int number) {
        try {
            return jpeg.encode(SamplePicture.of(wanted.width, wanted.height, 1000L * number));
        } catch (Exception error) {
            throw new EngineException("the picture for the measurement cannot be written ("
                + EdgeMllmException.line(error) + ")", error);
        }
    }

    private static double seconds(Answer answer, String name) {
        return (Double) answer.timings.get(name);
    }

    private void note(Map<String, Object> sample) {
        double sum = 0;
        for (Map.Entry<?, ?> stage : ((Map<?, ?>) sample.get("stages")).entrySet()) {
            series.get(stage.getKey()).add((Double) stage.getValue());
            sum += (Double) stage.getValue();
        }
        for (String name : new String[] {"end_to_end", "ttft", "prefill_tps", "decode_tps", "second_ttft"}) {
            series.get(name).add((Double) sample.get(name));
        }
        double whole = (Double) sample.get("end_to_end");
        series.get("residual").add((whole - sum) / whole);
        double vision = (Double) ((Map<?, ?>) sample.get("stages")).get("vision");
        series.get("vision_per_tile").add(vision / tiles());
    }

    private long tiles() {
        return (Long) last.images.get(0).get("tiles");
    }

    private Map<String, Object> entry(Map<String, Object> loaded) {
        Bundle bundle = model.bundle;
        long read = bytes("decoder_onnx") + bytes("decoder_onnx_data");
        Map<String, Object> memory = new LinkedHashMap<String, Object>();
        memory.put("before", model.memoryBefore());
        memory.put("loaded", loaded);
        memory.put("steady", Memory.now());
        memory.put("peak_bytes", Memory.peakResident());
        Map<String, Object> out = new LinkedHashMap<String, Object>();
        out.put("case", wanted.document(bundle.directory.getPath(), model.threads, bundle.has("prompt_onnx")));
        out.put("model", described(bundle, read));
        out.put("engine", "onnx");
        out.put("threads", (long) model.threads);
        out.put("counts", counts());
        out.put("loads", loads());
        out.put("memory", memory);
        out.put("samples", samples);
        out.put("other_cores", null);
        out.put("devices", last.document().get("devices"));
        out.put("summary", summary());
        Map<String, Object> shares = new LinkedHashMap<String, Object>();
        shares.put("decode_bytes_per_s", read * series.get("decode_tps").median());
        String[] unknown = {"decode_of_bandwidth", "tower_ops_per_s", "tower_of_int8", "tower_of_float32"};
        for (String name : unknown) {
            shares.put(name, null); // the machine's limits and the tower's operations are not known here
        }
        out.put("shares", shares);
        return out;
    }

    private Map<String, Object> summary() {
        Map<String, Object> out = new LinkedHashMap<String, Object>();
        for (Map.Entry<String, Series> each : series.entrySet()) {
            out.put(each.getKey(), each.getValue().document());
        }
        return out;
    }

    private Map<String, Object> counts() {
        Map<String, Object> out = new LinkedHashMap<String, Object>();
        out.put("tiles", tiles());
        out.put("visual_tokens", (long) last.imageTokens);
        out.put("prompt_tokens", (long) last.promptTokens);
        out.put("completion_tokens", (long) last.completionTokens);
        out.put("guessed_tokens", null);
        out.put("right_tokens", null);
        return out;
    }

    /** The hashes have just been read, so the files lie in memory. */
    private Map<String, Object> loads() {
        Map<String, Object> out = new LinkedHashMap<String, Object>();
        out.put("cold", new ArrayList<Object>());
        out.put("warm", Collections.singletonList(model.loadSeconds()));
        out.put("start", new ArrayList<Object>());
        return out;
    }

    private static Map<String, Object> described(Bundle bundle, long read) {
        long bytes = 0;
        File[] files = bundle.directory.listFiles();
        for (File file : files == null ? new File[0] : files) {
            bytes += file.length();
        }
        Map<String, Object> parts = new LinkedHashMap<String, Object>();
        for (Map.Entry<String, Part> part : bundle.spec.parts.entrySet()) {
            parts.put(part.getKey(), part.getValue().precision);
        }
        Map<String, Object> out = new LinkedHashMap<String, Object>();
        out.put("name", bundle.spec.name);
        try {
            out.put("sha256", Machine.sha256(Bundle.read(new File(bundle.directory, "bundle.json"))));
        } catch (IOException error) {
            throw new EngineException("bundle.json cannot be read (" + EdgeMllmException.line(error) + ")", error);
        }
        out.put("bytes_on_disk", bytes);
        out.put("parts", parts);
        out.put("decode_bytes", read);
        out.put("tower_ops", null);
        out.put("random_weights", bundle.spec.randomWeights);
        return out;
    }

    private long bytes(String part) {
        Part found = model.bundle.spec.parts.get(part);
        return found == null ? 0 : found.bytes;
    }
}
