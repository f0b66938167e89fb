package org.edgemllm.cli;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.edgemllm.answer.Budget;
import org.edgemllm.answer.Request;
import org.edgemllm.measure.BenchCase;

/** The words of the command line. */
final class Options {
    /** What the command line was used wrongly for. */
    static final class UsageException extends Exception {
        private static final long serialVersionUID = 1L;

        UsageException(String message) {
            super(message);
        }
    }

    private static final Map<String, String> SHORT = new HashMap<String, String>();
    private static final Set<String> VALUED = new HashSet<String>(Arrays.asList("--model", "--image", "--output",
        "--system", "--detail", "--max-image-tokens", "--max-new-tokens", "--temperature", "--top-k", "--top-p",
        "--min-p", "--repetition-penalty", "--seed", "--stop", "--threads", "--max-memory", "--port", "--image-size",
        "--prompt-tokens", "--answer-tokens", "--warmup", "--repeat"));
    private static final Set<String> FLAGS = new HashSet<String>(Arrays.asList("--low-memory", "--json", "--json-indent"));

    static {
        SHORT.put("-m", "--model");
        SHORT.put("-i", "--image");
        SHORT.put("-o", "--output");
    }

    private final Map<String, List<String>> given = new HashMap<String, List<String>>();
    private final List<String> words = new ArrayList<String>();

    Options(List<String> arguments) throws UsageException {
        boolean plain = false;
        for (int i = 0; i < arguments.size(); i++) {
            String word = arguments.get(i);
            if (plain || !word.startsWith("-") || word.equals("-")) {
                words.add(word);
            } else if (word.equals("--")) {
                plain = true;
            } else {
                i = take(arguments, i);
            }
        }
    }

    /** The one word that is no option. */
    String prompt() throws UsageException {
        if (words.size() != 1) {
            throw new UsageException("one PROMPT is expected, " + words.size() + " were given");
        }
        return words.get(0);
    }

    boolean has(String name) {
        return given.containsKey(name);
    }

    /** All values of an option. */
    List<String> all(String name) {
        List<String> found = given.get(name);
        return found == null ? new ArrayList<String>() : found;
    }

    String text(String name, String otherwise) {
        List<String> found = all(name);
        return found.isEmpty() ? otherwise : found.get(found.size() - 1);
    }

    Long whole(String name) throws UsageException {
        String found = text(name, null);
        try {
            return found == null ? null : Long.valueOf(found);
        } catch (NumberFormatException error) {
            throw new UsageException(name + ": '" + found + "' is not a whole number");
        }
    }

    int whole(String name, int otherwise) throws UsageException {
        Long found = whole(name);
        if (found != null && found != found.intValue()) {
            throw new UsageException(name + ": " + found + " is too large");
        }
        return found == null ? otherwise : found.intValue();
    }

    double number(String name, double otherwise) throws UsageException {
        String found = text(name, null);
        try {
            return found == null ? otherwise : Double.parseDouble(found);
        } catch (NumberFormatException error) {
            throw new UsageException(name + ": '" + found + "' is not a number");
        }
    }

    /** How to answer. */
    Request request() throws UsageException {
        Request request = new Request();
        request.maxNewTokens = whole("--max-new-tokens", request.maxNewTokens);
        request.sampling.temperature = number("--temperature", 0.0);
        request.sampling.topK = whole("--top-k", 0);
        request.sampling.topP = number("--top-p", 1.0);
        request.sampling.minP = number("--min-p", 0.0);
        request.sampling.repetitionPenalty = number("--repetition-penalty", 1.0);
        request.sampling.seed = whole("--seed");
        request.stop = all("--stop");
        request.maxMemory = whole("--max-memory");
        request.budget = budget();
        return request;
    }

    /** What to measure. */
    BenchCase benchCase() throws UsageException {
        BenchCase wanted = new BenchCase();
        String[] size = text("--image-size", wanted.width + "x" + wanted.height).split("x", -1);
        if (size.length != 2 || !size[0].matches("[0-9]{1,6}") || !size[1].matches("[0-9]{1,6}")) {
            throw new UsageException("--image-size is WIDTHxHEIGHT, such as 1024x768");
        }
        wanted.width = Integer.parseInt(size[0]);
        wanted.height = Integer.parseInt(size[1]);
        wanted.promptTokens = whole("--prompt-tokens", wanted.promptTokens);
        wanted.answerTokens = whole("--answer-tokens", wanted.answerTokens);
        wanted.warmup = whole("--warmup", wanted.warmup);
        wanted.repeat = whole("--repeat", wanted.repeat);
        return wanted;
    }

    Budget budget() throws UsageException {
        Integer most = has("--max-image-tokens") ? Integer.valueOf(whole("--max-image-tokens", 0)) : null;
        return new Budget(text("--detail", "auto"), most);
    }

    private int take(List<String> arguments, int at) throws UsageException {
        String word = arguments.get(at);
        int equals = word.startsWith("--") ? word.indexOf('=') : -1;
        String name = equals > 0 ? word.substring(0, equals) : word;
        name = SHORT.containsKey(name) ? SHORT.get(name) : name;
        String value = "";
        if (VALUED.contains(name)) {
            if (equals < 0 && at + 1 >= arguments.size()) {
                throw new UsageException(name + " needs a value");
            }
            value = equals > 0 ? word.substring(equals + 1) : arguments.get(++at);
        } else if (!FLAGS.contains(name) || equals > 0) {
            throw new UsageException("there is no option " + name);
        }
        List<String> values = all(name);
        values.add(value);
        given.put(name, values);
        return at;
    }
}
