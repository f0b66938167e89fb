package org.edgemllm.text;

import java.util.List;

import org.edgemllm.json.FieldException;
import org.edgemllm.json.Fields;

/** Special tokens that a tokenizer puts round a text where it is asked for them. */
final class PostProcessor {
    private final IntList before = new IntList();
    private final IntList after = new IntList();

    PostProcessor(Fields document) throws FieldException {
        if (document.has("post_processor")) {
            add(document.object("post_processor"));
        }
    }

    /** The ids with what goes round them. */
    int[] apply(int[] ids) {
        IntList all = new IntList();
        for (int id : before.toArray()) {
            all.add(id);
        }
        for (int id : ids) {
            all.add(id);
        }
        for (int id : after.toArray()) {
            all.add(id);
        }
        return all.toArray();
    }

    private void add(Fields fields) throws FieldException {
        String kind = fields.text("type");
        if (kind.equals("Sequence")) {
            for (Object each : fields.list("processors")) {
                add(Fields.of(each, fields.path("processors")));
            }
        } else if (kind.equals("TemplateProcessing")) {
            addTemplate(fields);
        } else if (!kind.equals("ByteLevel")) {
            throw new FieldException(fields.path("type"), "this version does not know '" + kind + "'");
        }
    }

    private void addTemplate(Fields fields) throws FieldException {
        boolean passed = false;
        Fields tokens = fields.object("special_tokens");
        List<?> pieces = fields.list("single");
        for (Object each : pieces) {
            Fields piece = Fields.of(each, fields.path("single"));
            if (piece.has("Sequence")) {
                passed = true;
                continue;
            }
            for (int id : tokens.object(piece.object("SpecialToken").text("id")).wholes("ids")) {
                (passed ? after : before).add(id);
            }
        }
    }
}
