package org.edgemllm.bundle;

import org.edgemllm.json.FieldException;
import org.edgemllm.json.Fields;

/** The part of bundle.json that is about prompts. */
final class PromptReader {
    private PromptReader() {
    }

    static PromptSpec read(Fields fields, int vocabulary) throws FieldException {
        PromptSpec spec = new PromptSpec();
        spec.imageToken = fields.text("image_token");
        spec.imageTokenId = token(fields, "image_token_id", fields.whole("image_token_id"), vocabulary);
        spec.placeholder = fields.text("placeholder");
        if (spec.imageToken.isEmpty() || spec.placeholder.isEmpty()) {
            throw new FieldException(fields.path("placeholder"), "it is empty");
        }
        spec.layout = layout(fields.object("layout"));
        spec.stopTokenIds = fields.wholes("stop_token_ids");
        for (int id : spec.stopTokenIds) {
            token(fields, "stop_token_ids", id, vocabulary);
        }
        spec.bosTokenId = fields.wholeOrNull("bos_token_id");
        if (spec.bosTokenId != null) {
            token(fields, "bos_token_id", spec.bosTokenId, vocabulary);
        }
        if (fields.has("special_tokens")) {
            Fields special = fields.object("special_tokens");
            spec.bosToken = special.has("bos_token") ? special.text("bos_token") : null;
        }
        spec.turns = fields.has("turns") ? turns(fields.object("turns")) : null;
        fields.end();
        return spec;
    }

    private static int token(Fields fields, String name, int id, int vocabulary) throws FieldException {
        if (id < 0 || id >= vocabulary) {
            throw new FieldException(fields.path(name), "outside the vocabulary of " + vocabulary);
        }
        return id;
    }

    private static TileLayout layout(Fields fields) throws FieldException {
        TileLayout layout = new TileLayout();
        layout.beforeImage = fields.text("before_image", "");
        layout.beforeTile = fields.text("before_tile", "");
        layout.afterTile = fields.text("after_tile", "");
        layout.afterRow = fields.text("after_row", "");
        layout.beforeGlobal = fields.text("before_global", "");
        layout.afterGlobal = fields.text("after_global", "");
        layout.beforeSingle = fields.text("before_single", "");
        layout.afterSingle = fields.text("after_single", "");
        layout.afterImage = fields.text("after_image", "");
        fields.end();
        return layout;
    }

    private static Turns turns(Fields fields) throws FieldException {
        Turns turns = new Turns();
        turns.first = start(fields, "first");
        turns.firstPictures = start(fields, "first_pictures");
        turns.system = fields.has("system") ? start(fields, "system") : null;
        turns.systemPictures = fields.has("system_pictures") ? start(fields, "system_pictures") : null;
        turns.later = start(fields, "later");
        turns.laterPictures = start(fields, "later_pictures");
        turns.answer = fields.text("answer");
        turns.ask = fields.text("ask");
        turns.trimsUser = fields.flag("trims_user", false);
        turns.trimsReply = fields.flag("trims_reply", false);
        turns.trimsSystem = fields.flag("trims_system", false);
        fields.end();
        return turns;
    }

    private static UserStart start(Fields fields, String name) throws FieldException {
        Fields found = fields.object(name);
        UserStart start = new UserStart(found.text("before_system", ""), found.text("before", ""),
            found.text("picture", ""), found.text("before_text", ""));
        found.end();
        return start;
    }
}
