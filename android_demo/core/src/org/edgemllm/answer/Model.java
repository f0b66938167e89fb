package org.edgemllm.answer;

import java.io.Closeable;
import java.io.File;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;

import org.edgemllm.bundle.Bundle;
import org.edgemllm.bundle.BundleSpec;
import org.edgemllm.engine.Decoder;
import org.edgemllm.engine.Segment;
import org.edgemllm.engine.Tower;
import org.edgemllm.errors.MemoryException;
import org.edgemllm.errors.PromptException;
import org.edgemllm.picture.Rgb;
import org.edgemllm.picture.TilePlan;
import org.edgemllm.prompt.Message;
import org.edgemllm.prompt.PromptBuilder;
import org.edgemllm.prompt.PromptIds;
import org.edgemllm.prompt.Slot;
import org.edgemllm.text.StopStrings;
import org.edgemllm.text.TextStream;
import org.edgemllm.text.Tokenizer;

/** A bundle in memory, ready to answer; one answer at a time. */
public final class Model implements Closeable {
    public final Bundle bundle;
    private final BundleSpec spec;
    private final Tokenizer tokenizer;
    private final PromptBuilder prompts;
    private final Tower tower;
    public final int threads;
    private final boolean lowMemory;
    private final Cells cells = new Cells();
    private final Memory memory = new Memory();
    private Decoder decoder;
    private double loadSeconds;
    private Map<String, Object> memoryBefore;

    private Model(Bundle bundle, int threads, boolean lowMemory) {
        this.bundle = bundle;
        this.spec = bundle.spec;
        this.threads = threads;
        this.lowMemory = lowMemory;
        this.tokenizer = new Tokenizer(bundle.text("tokenizer"));
        TokenizerCheck.check(bundle, tokenizer);
        this.prompts = new PromptBuilder(spec, tokenizer);
        this.tower = new Tower(bundle, threads);
    }

    /**
     * Open a bundle directory.
     *
     * @param threads of the tower and the decoder
     * @param checkHashes compare the SHA-256 of every file that is used
     * @param lowMemory tower and decoder are loaded one after the other, the tower for each question with new pictures
     */
    public static Model open(File directory, int threads, boolean checkHashes, boolean lowMemory) {
        long start = System.nanoTime();
        Map<String, Object> before = Memory.now();
        try {
            Model model = new Model(Bundle.open(directory, checkHashes), threads, lowMemory);
            if (!lowMemory) {
                model.decoder = new Decoder(model.bundle, threads);
            }
            model.loadSeconds = (System.nanoTime() - start) / 1e9;
            model.memoryBefore = before;
            return model;
        } catch (OutOfMemoryError error) {
            throw new MemoryException("this model", error);
        }
    }

    public Tokenizer tokenizer() {
        return tokenizer;
    }

    public PromptBuilder prompts() {
        return prompts;
    }

    /** Decoded pictures with the tiling that the budget leaves them. */
    public List<Picture> pictures(List<Rgb> decoded, Budget budget) {
        return Picture.tiled(decoded, spec.image, spec.vision.tokensPerTile, budget);
    }

    /** The prompt of a conversation. */
    public PromptIds prompt(List<Message> messages, List<Picture> pictures) {
        List<TilePlan> plans = new ArrayList<TilePlan>();
        for (Picture picture : pictures) {
            plans.add(picture.plan);
        }
        return prompts.build(messages, plans);
    }

    /** Visual embeddings [tokens, row width] of a picture, as the decoder takes them. */
    public float[] encode(Picture picture) {
        try {
            return tower.encode(picture.tiles(), picture.plan, null);
        } catch (OutOfMemoryError error) {
            throw new MemoryException("this picture", error);
        }
    }

    /** Load the tower too, so that loading is no part of the first answer; not with low memory. */
    public void loadTower() {
        if (lowMemory) {
            return;
        }
        long start = System.nanoTime();
        tower.load();
        loadSeconds += (System.nanoTime() - start) / 1e9;
    }

    /** What loading took so far. */
    public double loadSeconds() {
        return loadSeconds;
    }

    /** Resident memory of the process before it had this model, see {@link Memory#now}. */
    public Map<String, Object> memoryBefore() {
        return memoryBefore;
    }

    /** A stopwatch for an answer that begins now and knows what loading took. */
    public Stopwatch startWatch() {
        return new Stopwatch(loadSeconds);
    }

    /** Answer one question about pictures, or about none; {@code listener} may be null. */
    public Answer ask(String prompt, List<Rgb> pictures, Request request, Listener listener) {
        Stopwatch watch = startWatch();
        List<Picture> tiled = pictures(pictures, request.budget);
        List<Message> messages = Message.question(null, prompt, pictures.size());
        return answer(messages, tiled, request, watch, false, listener == null ? Listener.NOBODY : listener);
    }

    /**
     * Answer a conversation.
     *
     * @param pictures of all its turns, in order
     * @param watch running since the answer was asked for
     * @param keepAny keep the longest common beginning of the last prompt in the cache, as a chat does; else up to a
     *     picture's end only, and answers do not depend on what was asked before
     */
    public Answer answer(List<Message> messages, List<Picture> pictures, Request request, Stopwatch watch,
        boolean keepAny, Listener listener) {
        try {
            return answered(messages, pictures, request, watch, keepAny, listener);
        } catch (OutOfMemoryError error) {
            forget();
            throw new MemoryException("this answer", error);
        }
    }

    private Answer answered(List<Message> messages, List<Picture> pictures, Request request, Stopwatch watch,
        boolean keepAny, Listener listener) {
        request.check();
        PromptIds prompt = prompt(messages, pictures);
        int needed = prompt.ids.length + 1;
        if (needed > spec.decoder.contextLength) {
            throw PromptException.overflow(needed, spec.decoder.contextLength, prompt.imageTokens());
        }
        new MemoryPlan(this, prompt, pictures, request).check();
        float[] logits;
        try {
            logits = prefill(prompt, pictures, request, watch, keepAny, listener);
        } catch (RuntimeException error) {
            forget();
            throw error;
        }
        return decode(prompt, pictures, request, watch, listener, logits);
    }

    @Override
    public void close() {
        tower.close();
        if (decoder != null) {
            decoder.close();
            decoder = null;
        }
        cells.clear();
    }

    boolean towerLoaded() {
        return tower.loaded();
    }

    /** null while it is not loaded. */
    Decoder decoder() {
        return decoder;
    }

    boolean inTurn() {
        return lowMemory && decoder == null;
    }

    /** After an error the cache's contents are not known. */
    private void forget() {
        cells.clear();
        if (decoder != null) {
            decoder.truncate(0);
        }
    }

    private float[] prefill(PromptIds prompt, List<Picture> pictures, Request request, Stopwatch watch,
        boolean keepAny, Listener listener) {
        List<Integer> borders = new ArrayList<Integer>();
        for (Slot slot : prompt.slots) {
            borders.add(slot.end());
        }
        List<Long> keys = cells.keysOf(prompt, pictures);
        int kept = cells.kept(keys, keepAny ? null : borders);
        for (int i = 0; i < pictures.size(); i++) {
            if (borders.get(i) > kept) {
                encode(pictures.get(i), watch, listener);
            } else {
                pictures.get(i).from("kv");
            }
        }
        memory.note();
        watch.enter(Stopwatch.Stage.LOAD);
        if (lowMemory) {
            tower.close();
        }
        decoder = decoder == null ? new Decoder(bundle, threads) : decoder;
        watch.prefilled = keys.size() - kept;
        decoder.warm(watch.prefilled);
        watch.enter(Stopwatch.Stage.PREFILL);
        cells.cut(decoder, kept);
        decoder.reserve(keys.size() + request.maxNewTokens);
        List<Segment> segments = Splice.of(prompt, pictures, spec.decoder.rowSize(), kept);
        float[] logits = cells.prefill(decoder, keys, segments, borders);
        watch.enter(null);
        memory.note();
        return logits;
    }

    private void encode(Picture picture, Stopwatch watch, final Listener listener) {
        if (picture.encoded()) {
            picture.from("memory");
            return;
        }
        watch.enter(Stopwatch.Stage.PREPROCESS);
        org.edgemllm.picture.Tiles tiles = picture.tiles();
        watch.enter(Stopwatch.Stage.LOAD);
        tower.load();
        watch.enter(Stopwatch.Stage.VISION);
        picture.keep(tower.encode(tiles, picture.plan, new Tower.Progress() {
            @Override
            public void done(int done, int all) {
                listener.tiles(done, all);
            }
        }));
        picture.from("tower");
        watch.enter(null);
    }

    private Answer decode(PromptIds prompt, List<Picture> pictures, Request request, Stopwatch watch,
        Listener listener, float[] logits) {
        Sampler sampler = new Sampler(request.sampling, prompt.ids);
        TextStream stream = new TextStream(tokenizer);
        StopStrings stops = new StopStrings(request.stop);
        int most = Math.min(request.maxNewTokens, decoder.contextLength - prompt.ids.length);
        StringBuilder text = new StringBuilder();
        String finish = null;
        int count = 0;
        while (finish == null) {
            int token = sampler.choose(logits);
            count++;
            watch.token();
            boolean ends = !request.ignoresEnd && spec.prompt.stopsAt(token);
            String piece = stops.push(ends ? stream.flush() : stream.push(token));
            finish = ends || stops.hit() ? "stop" : null;
            if (finish == null && count == most) {
                piece += stops.push(stream.flush());
                finish = stops.hit() ? "stop" : "length";
            }
            piece += finish != null && !stops.hit() ? stops.flush() : "";
            text.append(piece);
            if (!listener.text(piece) && finish == null) {
                finish = "length";
            }
            if (finish == null) {
                logits = cells.step(decoder, token);
            }
        }
        memory.note();
        List<Map<String, Object>> images = new ArrayList<Map<String, Object>>();
        for (Picture picture : pictures) {
            images.add(picture.usage(spec.vision.tokensPerTile));
        }
        int[] counts = {prompt.ids.length, prompt.imageTokens(), count};
        Long[] peaks = {Memory.peakResident(), memory.anonymousPeak()};
        return new Answer(text.toString(), finish, counts, images, watch.timings(), peaks, spec.name);
    }
}
