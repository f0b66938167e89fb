package org.edgemllm.screen;

import java.io.File;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.edgemllm.answer.Answer;
import org.edgemllm.answer.Budget;
import org.edgemllm.answer.Listener;
import org.edgemllm.answer.Model;
import org.edgemllm.answer.Picture;
import org.edgemllm.answer.Request;
import org.edgemllm.answer.Stopwatch;
import org.edgemllm.errors.EdgeMllmException;
import org.edgemllm.errors.PromptException;
import org.edgemllm.measure.Bench;
import org.edgemllm.measure.BenchCase;
import org.edgemllm.picture.Rgb;
import org.edgemllm.picture.TilePlan;
import org.edgemllm.picture.file.Decoded;
import org.edgemllm.picture.file.PictureFile;
import org.edgemllm.prompt.Message;

/**
 * What the demo's page asks for and shows, without Android: a bundle, a picture, a conversation about it. All calls but
 * {@link #stop} come from one thread; errors of the library become events.
 */
public final class Screen {
    /** Answers that a measurement counts. */
    private static final int REPEAT = 3;

    private final Events events;
    private final PictureFile files;
    private final Platform platform;
    private final int threads;
    private final List<Message> messages = new ArrayList<Message>();
    private Model model;
    private Decoded picture;
    private List<Picture> tiled = Collections.emptyList();
    private volatile boolean stopped;

    public Screen(Events events, Platform platform, int threads) {
        this.events = events;
        this.platform = platform;
        this.files = new PictureFile(platform);
        this.threads = threads;
    }

    /** Open a bundle in the place of the one before. */
    public void open(File directory, boolean lowMemory) {
        try {
            Model opened = Model.open(directory, threads, true, lowMemory);
            close();
            model = opened;
            messages.clear();
            tiled = Collections.emptyList();
            Map<String, Object> event = event("model");
            event.put("name", opened.bundle.spec.name);
            event.put("context", (long) opened.bundle.spec.decoder.contextLength);
            events.event(event);
            showPlan("auto", null);
        } catch (EdgeMllmException error) {
            fail(error);
        }
    }

    /** Take a picture in the place of the one before; the conversation begins anew. */
    public void picture(byte[] file) {
        try {
            messages.clear();
            tiled = Collections.emptyList();
            picture = null;
            picture = files.read(file, "given");
            showPlan("auto", null);
        } catch (EdgeMllmException error) {
            fail(error);
        }
    }

    /** Say how the picture would be cut. */
    public void plan(String detail, Integer maxImageTokens) {
        try {
            showPlan(detail, maxImageTokens);
        } catch (EdgeMllmException error) {
            fail(error);
        }
    }

    /** Ask about the picture, or go on with the conversation about it. */
    public void ask(String prompt, String detail, Integer maxImageTokens) {
        int said = messages.size();
        stopped = false;
        try {
            if (model == null) {
                throw new PromptException("no model is open");
            }
            Request request = new Request();
            request.budget = new Budget(detail, maxImageTokens);
            Stopwatch watch = model.startWatch();
            watch.enter(Stopwatch.Stage.PICTURE);
            boolean first = messages.isEmpty();
            if (first) {
                List<Rgb> decoded = new ArrayList<Rgb>();
                if (picture != null) {
                    decoded.add(picture.rgb);
                }
                tiled = model.pictures(decoded, request.budget);
            }
            watch.enter(null);
            messages.add(Message.user(prompt, first ? tiled.size() : 0));
            Answer answer = model.answer(messages, tiled, request, watch, true, listener());
            messages.add(Message.assistant(answer.text));
            Map<String, Object> event = event("answer");
            event.put("answer", answer.document());
            events.event(event);
        } catch (EdgeMllmException error) {
            while (messages.size() > said) {
                messages.remove(messages.size() - 1);
            }
            fail(error);
        } catch (OutOfMemoryError error) {
            messages.clear();
            fail(new PromptException("there is not enough memory; use low detail or a smaller model"));
        }
    }

    /** Measure the model as {@code edge-mllm bench} does; the event has the whole result. */
    public void measure() {
        stopped = false;
        try {
            if (model == null) {
                throw new PromptException("no model is open");
            }
            BenchCase wanted = new BenchCase();
            wanted.repeat = REPEAT;
            Bench bench = new Bench(model, wanted, platform, platform);
            Map<String, Object> event = event("measured");
            event.put("result", bench.run(platform.machine(), new Bench.Progress() {
                @Override
                public boolean done(int answers, int all) {
                    Map<String, Object> event = event("measuring");
                    event.put("done", (long) answers);
                    event.put("all", (long) all);
                    events.event(event);
                    return !stopped;
                }
            }));
            events.event(event);
        } catch (EdgeMllmException error) {
            fail(error);
        }
    }

    /** End the answer or the measurement that is being made; from any thread. */
    public void stop() {
        stopped = true;
    }

    /** Free the model. */
    public void close() {
        if (model != null) {
            model.close();
            model = null;
        }
    }

    private void showPlan(String detail, Integer maxImageTokens) {
        if (model == null || picture == null) {
            return;
        }
        List<Picture> cut = model.pictures(Collections.singletonList(picture.rgb), new Budget(detail, maxImageTokens));
        TilePlan plan = cut.get(0).plan;
        Map<String, Object> event = event("plan");
        event.put("width", (long) plan.width);
        event.put("height", (long) plan.height);
        event.put("rows", (long) plan.rows);
        event.put("cols", (long) plan.cols);
        event.put("tiles", (long) plan.count());
        event.put("tokens", (long) plan.tokens(model.bundle.spec.vision.tokensPerTile));
        event.put("note", picture.note());
        events.event(event);
    }

    private Listener listener() {
        return new Listener() {
            @Override
            public void tiles(int done, int all) {
                Map<String, Object> event = event("tiles");
                event.put("done", (long) done);
                event.put("all", (long) all);
                events.event(event);
            }

            @Override
            public boolean text(String piece) {
                Map<String, Object> event = event("text");
                event.put("text", piece);
                events.event(event);
                return !stopped;
            }
        };
    }

    private void fail(EdgeMllmException error) {
        Map<String, Object> event = event("error");
        event.put("message", error.getMessage());
        events.event(event);
    }

    private static Map<String, Object> event(String name) {
        Map<String, Object> event = new LinkedHashMap<String, Object>();
        event.put("event", name);
        return event;
    }
}
