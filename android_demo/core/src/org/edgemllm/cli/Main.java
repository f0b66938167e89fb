package org.edgemllm.cli;

import java.io.File;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.Charset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

import org.edgemllm.answer.Answer;
import org.edgemllm.answer.Listener;
import org.edgemllm.answer.Model;
import org.edgemllm.answer.Picture;
import org.edgemllm.answer.Request;
import org.edgemllm.answer.Stopwatch;
import org.edgemllm.bundle.Bundle;
import org.edgemllm.engine.Cores;
import org.edgemllm.errors.EdgeMllmException;
import org.edgemllm.errors.ImageException;
import org.edgemllm.errors.SettingException;
import org.edgemllm.json.JsonText;
import org.edgemllm.measure.Bench;
import org.edgemllm.measure.BenchCase;
import org.edgemllm.picture.Rgb;
import org.edgemllm.picture.TilePlan;
import org.edgemllm.picture.file.Decoded;
import org.edgemllm.picture.file.PictureFile;
import org.edgemllm.picture.tilers.Tiler;
import org.edgemllm.prompt.Message;
import org.edgemllm.prompt.PromptBuilder;
import org.edgemllm.prompt.PromptIds;
import org.edgemllm.text.Tokenizer;

/**
 * The phone's code as commands: {@code run}, {@code pixels}, {@code ids}, {@code bench}, {@code page} and, for tests,
 * {@code lines}.
 */
public final class Main {
    private static final String USAGE =
        "usage: core.sh run|pixels|ids|bench [-m BUNDLE] [-i IMAGE]... [-o FILE] PROMPT";

    private final Options options;
    private final PrintStream out;

    private Main(Options options, PrintStream out) {
        this.options = options;
        this.out = out;
    }

    /** Exit codes: 0 done; 1 failed, with one line on standard error; 2 wrong usage. */
    public static void main(String[] arguments) throws IOException {
        PrintStream out = new PrintStream(System.out, false, "UTF-8");
        PrintStream err = new PrintStream(System.err, true, "UTF-8");
        int code = 0;
        try {
            if (arguments.length == 0) {
                throw new Options.UsageException("a command is missing");
            }
            String command = arguments[0];
            if (command.equals("lines")) {
                new Lines(out).answerAll(System.in);
            } else {
                List<String> rest = Arrays.asList(arguments).subList(1, arguments.length);
                new Main(new Options(rest), out).run(command);
            }
        } catch (Options.UsageException error) {
            err.println(USAGE + "\n" + error.getMessage());
            code = 2;
        } catch (EdgeMllmException error) {
            err.println(error.getMessage());
            code = 1;
        }
        out.flush();
        if (code != 0 || arguments.length == 0 || !arguments[0].equals("page")) {
            System.exit(code);
        }
    }

    private void run(String command) throws Options.UsageException {
        if (command.equals("run")) {
            answer();
        } else if (command.equals("pixels")) {
            pixels();
        } else if (command.equals("ids")) {
            ids();
        } else if (command.equals("bench")) {
            bench();
        } else if (command.equals("page")) {
            page();
        } else {
            throw new Options.UsageException("there is no command " + command);
        }
    }

    private void answer() throws Options.UsageException {
        String prompt = options.prompt();
        Request request = options.request();
        try (Model model = Model.open(directory(), threads(), true, options.has("--low-memory"))) {
            Stopwatch watch = model.startWatch();
            watch.enter(Stopwatch.Stage.PICTURE);
            List<Picture> pictures = model.pictures(decoded(), request.budget);
            watch.enter(null);
            List<Message> messages = Message.question(options.text("--system", null), prompt, pictures.size());
            Answer answer = model.answer(messages, pictures, request, watch, false, Listener.NOBODY);
            out.println(JsonText.of(answer.document(), options.has("--json-indent") ? 2 : 0));
        }
    }

    /** Measure; the result is a file of edge-mllm bench. */
    private void bench() throws Options.UsageException {
        BenchCase wanted = options.benchCase();
        JvmFormats formats = new JvmFormats();
        try (Model model = Model.open(directory(), threads(), true, false)) {
            Bench bench = new Bench(model, wanted, formats, formats);
            String json = JsonText.of(bench.run(formats.machine(), new Bench.Progress() {
                @Override
                public boolean done(int answers, int all) {
                    return true;
                }
            }), 1);
            if (options.has("--output")) {
                byte[] text = (json + "\n").getBytes(Charset.forName("UTF-8"));
                WholeFile.write(options.text("--output", null), text);
            } else {
                out.println(json);
            }
        }
    }

    private int threads() throws Options.UsageException {
        int threads = options.whole("--threads", Cores.sensible());
        if (threads < 1 || threads > 1024) {
            throw new SettingException("threads is " + threads + "; it must be between 1 and 1024");
        }
        return threads;
    }

    /** The app's page for a browser of this machine. */
    private void page() throws Options.UsageException {
        File folder = new File(System.getProperty("edgemllm.page", "page"));
        try {
            Page.serve(directory(), folder, options.whole("--port", 0), options.whole("--threads", Cores.sensible()));
        } catch (IOException error) {
            throw new EdgeMllmException("the page cannot be served: " + EdgeMllmException.line(error));
        }
    }

    private void pixels() throws Options.UsageException {
        List<Rgb> pictures = decoded();
        if (pictures.size() != 1) {
            throw new Options.UsageException("one picture is expected, " + pictures.size() + " were given");
        }
        Bundle bundle = Bundle.open(directory(), false);
        Rgb rgb = pictures.get(0);
        Tiler tiler = options.budget().choose(sizes(pictures), bundle.spec.image.tilerFor(1),
            bundle.spec.vision.tokensPerTile).get(0);
        TilePlan plan = tiler.plan(rgb.width, rgb.height);
        Pixels pixels = new Pixels(rgb, plan, bundle.spec.image, bundle.spec.vision);
        if (options.has("--output")) {
            Npy.write(options.text("--output", null), pixels.values, pixels.shape);
        }
        out.println("{\"shape\": " + pixels.shape.replace('(', '[').replace(')', ']') + ", \"grid\": [" + plan.rows
            + ", " + plan.cols + "], \"tiles\": " + plan.count() + ", \"tokens\": "
            + plan.tokens(bundle.spec.vision.tokensPerTile) + "}");
    }

    private void ids() throws Options.UsageException {
        String prompt = options.prompt();
        Bundle bundle = Bundle.open(directory(), false);
        List<int[]> sizes = sizes(decoded());
        List<TilePlan> plans = new ArrayList<TilePlan>();
        Tiler own = bundle.spec.image.tilerFor(sizes.size());
        List<Tiler> tilers = options.budget().choose(sizes, own, bundle.spec.vision.tokensPerTile);
        for (int i = 0; i < sizes.size(); i++) {
            plans.add(tilers.get(i).plan(sizes.get(i)[0], sizes.get(i)[1]));
        }
        PromptBuilder builder = new PromptBuilder(bundle.spec, new Tokenizer(bundle.text("tokenizer")));
        PromptIds ids = builder.build(Message.question(options.text("--system", null), prompt, plans.size()), plans);
        if (options.has("--output")) {
            Npy.write(options.text("--output", null), ids.ids);
        }
        out.println(JsonText.of(ids.ids, 0));
    }

    private File directory() {
        return new File(options.text("--model", System.getProperty("edgemllm.starter", "starter.edge")));
    }

    private List<Rgb> decoded() {
        List<Rgb> found = new ArrayList<Rgb>();
        for (String path : options.all("--image")) {
            found.add(decode(path));
        }
        return found;
    }

    private static List<int[]> sizes(List<Rgb> pictures) {
        List<int[]> sizes = new ArrayList<int[]>();
        for (Rgb rgb : pictures) {
            sizes.add(new int[] {rgb.width, rgb.height});
        }
        return sizes;
    }

    /** A picture from a file. */
    static Rgb decode(String path) {
        String name = "'" + path + "'";
        File file = new File(path);
        if (!file.isFile()) {
            throw new ImageException(name, file.isDirectory() ? "it is a directory" : "no such file");
        }
        try {
            Decoded found = new PictureFile(new JvmFormats()).read(Bundle.read(file), name);
            if (found.note() != null) {
                System.err.println(name + ": " + found.note());
            }
            return found.rgb;
        } catch (IOException error) {
            throw new ImageException(name, ImageException.line(error));
        }
    }
}
