package org.edgemllm.text;

import java.text.Normalizer;
import java.util.ArrayList;
import java.util.List;

import org.edgemllm.json.FieldException;
import org.edgemllm.json.Fields;

/** What a tokenizer does to a text before it is cut: steps of tokenizer.json. */
final class Normalizers {
    /** One step. */
    private interface Step {
        String apply(String text);
    }

    private final List<Step> steps = new ArrayList<Step>();

    Normalizers(Fields document) throws FieldException {
        if (document.has("normalizer")) {
            add(document.object("normalizer"));
        }
    }

    String apply(String text) {
        for (Step step : steps) {
            text = step.apply(text);
        }
        return text;
    }

    private void add(Fields fields) throws FieldException {
        String kind = fields.text("type");
        if (kind.equals("Sequence")) {
            for (Object each : fields.list("normalizers")) {
                add(Fields.of(each, fields.path("normalizers")));
            }
        } else if (kind.equals("Replace")) {
            steps.add(replace(fields.object("pattern"), fields.text("content")));
        } else if (kind.equals("Prepend")) {
            steps.add(prepend(fields.text("prepend")));
        } else if (kind.equals("NFC") || kind.equals("NFD") || kind.equals("NFKC") || kind.equals("NFKD")) {
            steps.add(form(Normalizer.Form.valueOf(kind)));
        } else {
            throw new FieldException(fields.path("type"), "this version does not know '" + kind + "'");
        }
    }

    private static Step form(final Normalizer.Form form) {
        return new Step() {
            @Override
            public String apply(String text) {
                return Normalizer.normalize(text, form);
            }
        };
    }

    private static Step prepend(final String before) {
        return new Step() {
            @Override
            public String apply(String text) {
                return text.isEmpty() ? text : before + text;
            }
        };
    }

    private static Step replace(Fields pattern, final String content) throws FieldException {
        final Splitter splitter = new Splitter(PreTokenizers.finder(pattern), "Isolated", false);
        return new Step() {
            @Override
            public String apply(String text) {
                return splitter.replaced(text, content);
            }
        };
    }
}
