package org.edgemllm.text;

import java.util.ArrayList;
import java.util.List;

import org.edgemllm.json.FieldException;
import org.edgemllm.json.Fields;

/** How a tokenizer cuts a text into pieces that no merge crosses: steps of tokenizer.json. */
final class PreTokenizers {
    private static final String GPT_2 =
        "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

    /** One step: a piece becomes pieces. */
    private interface Step {
        /** {@code first} tells whether the piece begins the text. */
        List<String> apply(String piece, boolean first);
    }

    private final List<Step> steps = new ArrayList<Step>();

    PreTokenizers(Fields document) throws FieldException {
        if (document.has("pre_tokenizer")) {
            add(document.object("pre_tokenizer"));
        }
    }

    /** The pieces of a text; {@code first} tells whether it begins the whole one. */
    List<String> apply(String text, boolean first) {
        List<String> pieces = new ArrayList<String>();
        pieces.add(text);
        for (Step step : steps) {
            List<String> cut = new ArrayList<String>();
            for (int i = 0; i < pieces.size(); i++) {
                cut.addAll(step.apply(pieces.get(i), first && i == 0));
            }
            pieces = cut;
        }
        return pieces;
    }

    /** What a {@code pattern} of tokenizer.json matches. */
    static Splitter.Finder finder(Fields pattern) throws FieldException {
        return pattern.has("String") ? Splitter.literal(pattern.text("String"))
            : Splitter.regex(pattern.text("Regex"));
    }

    private void add(Fields fields) throws FieldException {
        String kind = fields.text("type");
        if (kind.equals("Sequence")) {
            for (Object each : fields.list("pretokenizers")) {
                add(Fields.of(each, fields.path("pretokenizers")));
            }
        } else if (kind.equals("Split")) {
            String behavior = fields.text("behavior");
            if (!Splitter.knows(behavior)) {
                throw new FieldException(fields.path("behavior"), "this version does not know '" + behavior + "'");
            }
            add(new Splitter(finder(fields.object("pattern")), behavior, fields.flag("invert", false)));
        } else if (kind.equals("Digits")) {
            boolean each = fields.flag("individual_digits", false);
            add(new Splitter(Splitter.categories(Unicode.mask("N")), each ? "Isolated" : "Contiguous", false));
        } else if (kind.equals("ByteLevel")) {
            addByteLevel(fields.flag("add_prefix_space", true), fields.flag("use_regex", true));
        } else if (kind.equals("Metaspace")) {
            steps.add(metaspace(fields));
        } else {
            throw new FieldException(fields.path("type"), "this version does not know '" + kind + "'");
        }
    }

    private void add(final Splitter splitter) {
        steps.add(new Step() {
            @Override
            public List<String> apply(String piece, boolean first) {
                return splitter.split(piece);
            }
        });
    }

    private void addByteLevel(final boolean prefixes, boolean cuts) {
        final Splitter splitter = cuts ? new Splitter(Splitter.regex(GPT_2), "Isolated", false) : null;
        steps.add(new Step() {
            @Override
            public List<String> apply(String piece, boolean first) {
                String text = prefixes && !piece.isEmpty() && !piece.startsWith(" ") ? " " + piece : piece;
                List<String> cut = new ArrayList<String>();
                if (splitter == null) {
                    cut.add(text);
                } else {
                    cut.addAll(splitter.split(text));
                }
                for (int i = 0; i < cut.size(); i++) {
                    cut.set(i, ByteLetters.written(cut.get(i)));
                }
                return cut;
            }
        });
    }

    /** Spaces as a mark, one before the text where the scheme says so, and cut before every mark. */
    private static Step metaspace(Fields fields) throws FieldException {
        final String mark = fields.text("replacement");
        boolean older = fields.has("add_prefix_space") && !fields.flag("add_prefix_space", true);
        final String scheme = fields.has("prepend_scheme") ? fields.choice("prepend_scheme", "always", "first", "never")
            : older ? "never" : "always";
        final Splitter splitter = fields.flag("split", true)
            ? new Splitter(Splitter.literal(mark), "MergedWithNext", false) : null;
        return new Step() {
            @Override
            public List<String> apply(String piece, boolean first) {
                String text = piece.replace(" ", mark);
                boolean prepends = scheme.equals("always") || scheme.equals("first") && first;
                text = prepends && !text.isEmpty() && !text.startsWith(mark) ? mark + text : text;
                if (splitter != null) {
                    return splitter.split(text);
                }
                List<String> whole = new ArrayList<String>();
                whole.add(text);
                return whole;
            }
        };
    }
}
