package org.edgemllm.cli;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.edgemllm.bundle.Bundle;
import org.edgemllm.bundle.Shelf;
import org.edgemllm.bundle.SpecReader;
import org.edgemllm.errors.EdgeMllmException;
import org.edgemllm.json.FieldException;
import org.edgemllm.json.Fields;
import org.edgemllm.json.Json;
import org.edgemllm.json.JsonText;
import org.edgemllm.picture.ImageSpec;
import org.edgemllm.picture.Resampler;
import org.edgemllm.picture.Rgb;
import org.edgemllm.picture.TilePlan;
import org.edgemllm.picture.VisionSpec;
import org.edgemllm.picture.tilers.Tiler;
import org.edgemllm.prompt.Message;
import org.edgemllm.prompt.PromptBuilder;
import org.edgemllm.prompt.PromptIds;
import org.edgemllm.text.TextStream;
import org.edgemllm.text.Tokenizer;

/**
 * Many small questions to one process: a JSON object a line comes in, one goes out. So tests compare thousands of plans,
 * pictures and texts without starting a JVM for each.
 */
final class Lines {
    private final PrintStream out;
    private final Map<String, Tokenizer> tokenizers = new HashMap<String, Tokenizer>();
    private final OpenModels models = new OpenModels();
    private final Map<String, Bundle> bundles = new HashMap<String, Bundle>();

    Lines(PrintStream out) {
        this.out = out;
    }

    void answerAll(InputStream in) throws IOException {
        BufferedReader lines = new BufferedReader(new InputStreamReader(in, "UTF-8"));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            Map<String, Object> reply = new LinkedHashMap<String, Object>();
            try {
                answer(Fields.of(Json.parse(line), ""), reply);
            } catch (EdgeMllmException error) {
                reply.put("error", error.getMessage());
            } catch (FieldException error) {
                reply.put("error", error.getMessage());
            } catch (Json.JsonException error) {
                reply.put("error", error.getMessage());
            } catch (RuntimeException error) {
                reply.put("error", fault(error));
            } catch (Error error) {
                reply.put("error", fault(error));
            }
            out.println(JsonText.of(reply, 0));
            out.flush();
        }
    }

    private void answer(Fields asked, Map<String, Object> reply) throws FieldException, IOException {
        String what = asked.text("do");
        if (what.equals("plans")) {
            plans(asked, reply);
        } else if (what.equals("pixels")) {
            pixels(asked, reply);
        } else if (what.equals("resize")) {
            Rgb rgb = Main.decode(asked.text("image"));
            int[] size = asked.wholes("size");
            reply.put("sha256", sha256(Resampler.named(asked.text("filter")).resize(rgb, size[0], size[1]).data));
        } else if (what.equals("rgb")) {
            Rgb rgb = Main.decode(asked.text("image"));
            reply.put("size", new int[] {rgb.width, rgb.height});
            reply.put("sha256", sha256(rgb.data));
        } else if (what.equals("ids")) {
            reply.put("ids", tokenizer(asked.text("tokenizer")).encode(asked.text("text"), asked.flag("special", false)));
        } else if (what.equals("text")) {
            text(asked, reply);
        } else if (what.equals("run")) {
            models.run(asked, reply);
        } else if (what.equals("once")) {
            OpenModels.once(asked, reply);
        } else if (what.equals("put")) {
            put(asked, reply);
        } else if (what.equals("embeddings")) {
            reply.put("sha256", sha256(bytes(models.embeddings(asked))));
        } else if (what.equals("prompt")) {
            prompt(asked, reply);
        } else {
            throw new FieldException("do", "there is no '" + what + "'");
        }
    }

    /** Plans of many sizes: resizes, crops and tokens. */
    private void plans(Fields asked, Map<String, Object> reply) throws FieldException {
        ImageSpec image = SpecReader.image(asked.object("image"));
        VisionSpec vision = SpecReader.vision(asked.object("vision"));
        boolean low = asked.flag("low", false);
        int most = asked.whole("most", Integer.MAX_VALUE);
        List<Object> plans = new ArrayList<Object>();
        for (Object each : asked.list("sizes")) {
            int width = ((Long) ((List<?>) each).get(0)).intValue();
            int height = ((Long) ((List<?>) each).get(1)).intValue();
            try {
                Tiler tiler = low ? image.tiler.lowDetail(width, height)
                    : image.tiler.fitTokens(width, height, most, vision.tokensPerTile);
                TilePlan plan = tiler.plan(width, height);
                plans.add(plan.describe() + " " + plan.count() + " " + plan.tokens(vision.tokensPerTile));
            } catch (EdgeMllmException error) {
                plans.add(error.getMessage());
            }
        }
        reply.put("plans", plans);
    }

    private void pixels(Fields asked, Map<String, Object> reply) throws FieldException {
        ImageSpec image = SpecReader.image(asked.object("image"));
        VisionSpec vision = SpecReader.vision(asked.object("vision"));
        Rgb rgb = Main.decode(asked.text("file"));
        TilePlan plan = image.tiler.plan(rgb.width, rgb.height);
        Pixels pixels = new Pixels(rgb, plan, image, vision);
        reply.put("shape", pixels.shape);
        reply.put("sha256", sha256(bytes(pixels.values)));
    }

    /** Copy a bundle from a .zip or a folder as the app does. */
    private void put(Fields asked, Map<String, Object> reply) throws FieldException, IOException {
        File from = new File(asked.text("from"));
        Shelf shelf = new Shelf(new File(asked.text("into")));
        if (from.isDirectory()) {
            reply.put("place", shelf.put(asked.text("name"), Shelf.folder(from)).getPath());
        } else {
            try (InputStream zip = new FileInputStream(from)) {
                reply.put("place", shelf.put(asked.text("name"), Shelf.zip(zip)).getPath());
            }
        }
    }

    /** Text of ids, whole and streamed. */
    private void text(Fields asked, Map<String, Object> reply) throws FieldException, IOException {
        Tokenizer tokenizer = tokenizer(asked.text("tokenizer"));
        int[] ids = asked.wholes("ids");
        TextStream stream = new TextStream(tokenizer);
        List<Object> pieces = new ArrayList<Object>();
        for (int id : ids) {
            pieces.add(stream.push(id));
        }
        pieces.add(stream.flush());
        reply.put("text", tokenizer.decode(ids));
        reply.put("pieces", pieces);
    }

    /** The prompt of a whole conversation: roles, texts and numbers of pictures, and the pictures' sizes. */
    private void prompt(Fields asked, Map<String, Object> reply) throws FieldException, IOException {
        String path = asked.text("bundle");
        if (!bundles.containsKey(path)) {
            bundles.put(path, Bundle.open(new File(path), false));
        }
        Bundle bundle = bundles.get(path);
        List<TilePlan> plans = new ArrayList<TilePlan>();
        List<?> sizes = asked.list("sizes");
        for (Object each : sizes) {
            int width = ((Long) ((List<?>) each).get(0)).intValue();
            int height = ((Long) ((List<?>) each).get(1)).intValue();
            plans.add(bundle.spec.image.tilerFor(sizes.size()).plan(width, height));
        }
        List<Message> messages = new ArrayList<Message>();
        for (Object each : asked.list("messages")) {
            Fields message = Fields.of(each, "messages");
            String role = message.text("role");
            String said = message.text("text");
            messages.add(role.equals("system") ? Message.system(said) : role.equals("assistant")
                ? Message.assistant(said) : Message.user(said, message.whole("pictures", 0)));
        }
        PromptBuilder builder = new PromptBuilder(bundle.spec, tokenizer(bundle.file("tokenizer").getPath()));
        PromptIds prompt = builder.build(messages, plans);
        reply.put("text", prompt.text);
        reply.put("ids", prompt.ids);
    }

    private Tokenizer tokenizer(String path) throws IOException {
        Tokenizer found = tokenizers.get(path);
        if (found == null) {
            found = new Tokenizer(new String(Bundle.read(new File(path)), "UTF-8"));
            tokenizers.put(path, found);
        }
        return found;
    }

    /** What must not be, in two lines and with its place, so that nothing takes it for a refusal. */
    private static String fault(Throwable error) {
        StackTraceElement[] trace = error.getStackTrace();
        return "a fault in core:\n" + error + (trace.length == 0 ? "" : " " + trace[0]);
    }

    private static byte[] bytes(float[] values) {
        ByteBuffer bytes = ByteBuffer.allocate(values.length * 4).order(ByteOrder.LITTLE_ENDIAN);
        for (float value : values) {
            bytes.putFloat(value);
        }
        return bytes.array();
    }

    private static String sha256(byte[] data) {
        try {
            StringBuilder text = new StringBuilder();
            for (byte each : MessageDigest.getInstance("SHA-256").digest(data)) {
                text.append(String.format("%02x", each));
            }
            return text.toString();
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
    }
}
