package org.edgemllm.cli;

import java.io.File;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import org.edgemllm.answer.Answer;
import org.edgemllm.answer.Budget;
import org.edgemllm.answer.Listener;
import org.edgemllm.answer.Model;
import org.edgemllm.answer.Picture;
import org.edgemllm.answer.Request;
import org.edgemllm.answer.Stopwatch;
import org.edgemllm.json.FieldException;
import org.edgemllm.json.Fields;
import org.edgemllm.picture.Rgb;
import org.edgemllm.prompt.Message;

/** Models that stay open from one line to the next. */
final class OpenModels {
    private final Map<String, Model> models = new HashMap<String, Model>();

    /** Embeddings of one picture. */
    float[] embeddings(Fields asked) throws FieldException {
        Model model = model(asked);
        return model.encode(pictures(model, asked).get(0));
    }

    /** An answer and the pieces in which it came. */
    void run(Fields asked, Map<String, Object> reply) throws FieldException {
        answer(model(asked), asked, reply);
    }

    /** The same with a model that is opened for it and closed again. */
    static void once(Fields asked, Map<String, Object> reply) throws FieldException {
        try (Model model = open(asked, asked.flag("low_memory", false))) {
            answer(model, asked, reply);
        }
    }

    private static void answer(Model model, Fields asked, Map<String, Object> reply) throws FieldException {
        Request request = new Request();
        request.maxNewTokens = asked.whole("max_new_tokens", request.maxNewTokens);
        request.ignoresEnd = asked.flag("ignores_end", false);
        request.sampling.temperature = asked.number("temperature", 0.0);
        request.sampling.topK = asked.whole("top_k", 0);
        request.sampling.topP = asked.number("top_p", 1.0);
        request.sampling.minP = asked.number("min_p", 0.0);
        request.sampling.repetitionPenalty = asked.number("repetition_penalty", 1.0);
        request.sampling.seed = asked.has("seed") ? Long.valueOf(asked.big("seed")) : null;
        request.maxMemory = asked.has("max_memory") ? Long.valueOf(asked.big("max_memory")) : null;
        for (Object stop : asked.has("stop") ? asked.list("stop") : new ArrayList<Object>()) {
            request.stop.add((String) stop);
        }
        final List<Object> pieces = new ArrayList<Object>();
        Stopwatch watch = model.startWatch();
        watch.enter(Stopwatch.Stage.PICTURE);
        List<Picture> pictures = pictures(model, asked);
        watch.enter(null);
        List<Message> messages = Message.question(asked.text("system", null), asked.text("prompt"), pictures.size());
        Answer answer = model.answer(messages, pictures, request, watch, asked.flag("keep", false), new Listener() {
            @Override
            public void tiles(int done, int all) {
                // the pieces alone are told
            }

            @Override
            public boolean text(String piece) {
                pieces.add(piece);
                return true;
            }
        });
        reply.putAll(answer.document());
        reply.put("pieces", pieces);
    }

    private Model model(Fields asked) throws FieldException {
        String path = asked.text("bundle");
        boolean low = asked.flag("low_memory", false);
        Model found = models.get(path + low);
        if (found == null) {
            found = open(asked, low);
            models.put(path + low, found);
        }
        return found;
    }

    private static Model open(Fields asked, boolean lowMemory) throws FieldException {
        return Model.open(new File(asked.text("bundle")), asked.whole("threads", 1), true, lowMemory);
    }

    private static List<Picture> pictures(Model model, Fields asked) throws FieldException {
        List<Rgb> decoded = new ArrayList<Rgb>();
        for (Object each : asked.list("images")) {
            decoded.add(Main.decode((String) each));
        }
        Integer most = asked.wholeOrNull("max_image_tokens");
        return model.pictures(decoded, new Budget(asked.text("detail", "auto"), most));
    }
}
