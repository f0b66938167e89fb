package org.edgemllm.text;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.edgemllm.json.FieldException;
import org.edgemllm.json.Fields;

/** Tokens that are found in a text before anything else is done to it: the longest first, from left to right. */
final class AddedTokens {
    /** One of them. */
    private static final class Added {
        int id;
        boolean wordAlone;
        boolean takesLeft;
        boolean takesRight;
    }

    /** A letter on the way to a token. */
    private static final class Branch {
        final Map<Character, Branch> next = new HashMap<Character, Branch>();
        Added token;
    }

    /** A stretch of a text: a token or, with a null {@code id}, plain text. */
    static final class Span {
        final String text;
        final Integer id;

        Span(String text, Integer id) {
            this.text = text;
            this.id = id;
        }
    }

    private final Branch raw = new Branch();
    private final Branch normalised = new Branch();
    private final Set<Integer> special = new HashSet<Integer>();
    private final Map<Integer, String> contents = new HashMap<Integer, String>();

    AddedTokens(Fields document, Normalizers normalizers) throws FieldException {
        if (!document.has("added_tokens")) {
            return;
        }
        for (Object each : document.list("added_tokens")) {
            Fields fields = Fields.of(each, "added_tokens");
            Added token = new Added();
            token.id = fields.whole("id");
            token.wordAlone = fields.flag("single_word", false);
            token.takesLeft = fields.flag("lstrip", false);
            token.takesRight = fields.flag("rstrip", false);
            String content = fields.text("content");
            contents.put(token.id, content);
            if (fields.flag("special", false)) {
                special.add(token.id);
            }
            boolean normal = fields.flag("normalized", true);
            plant(normal ? normalised : raw, normal ? normalizers.apply(content) : content, token);
        }
    }

    boolean isSpecial(int id) {
        return special.contains(id);
    }

    /** Texts of the tokens by their ids. */
    Map<Integer, String> contents() {
        return contents;
    }

    /** Spans of a text as the user wrote it. */
    List<Span> inRaw(String text) {
        return spans(text, raw);
    }

    /** Spans of a text after normalisation. */
    List<Span> inNormalised(String text) {
        return spans(text, normalised);
    }

    private static void plant(Branch root, String content, Added token) {
        Branch branch = root;
        for (int i = 0; i < content.length(); i++) {
            Branch next = branch.next.get(content.charAt(i));
            if (next == null) {
                next = new Branch();
                branch.next.put(content.charAt(i), next);
            }
            branch = next;
        }
        if (branch != root) {
            branch.token = token;
        }
    }

    private static List<Span> spans(String text, Branch root) {
        List<Span> found = new ArrayList<Span>();
        int done = 0;
        int at = 0;
        while (at < text.length()) {
            int end = longest(text, at, root);
            Added token = end > at ? at(text, at, end, root) : null;
            if (token == null) {
                at++;
                continue;
            }
            int start = at;
            at = end;
            if (token.wordAlone && !(edge(text, start - 1) && edge(text, end))) {
                continue;
            }
            while (token.takesLeft && start > done && Unicode.isSpace(text.charAt(start - 1))) {
                start--;
            }
            while (token.takesRight && end < text.length() && Unicode.isSpace(text.charAt(end))) {
                end++;
            }
            if (start > done) {
                found.add(new Span(text.substring(done, start), null));
            }
            found.add(new Span(text.substring(start, end), token.id));
            done = end;
            at = Math.max(at, end);
        }
        if (done < text.length()) {
            found.add(new Span(text.substring(done), null));
        }
        return found;
    }

    private static int longest(String text, int at, Branch root) {
        int found = -1;
        Branch branch = root;
        for (int i = at; i < text.length() && branch != null; i++) {
            branch = branch.next.get(text.charAt(i));
            found = branch != null && branch.token != null ? i + 1 : found;
        }
        return found;
    }

    private static Added at(String text, int start, int end, Branch root) {
        Branch branch = root;
        for (int i = start; i < end; i++) {
            branch = branch.next.get(text.charAt(i));
        }
        return branch.token;
    }

    /** Whether there is no letter of a word at a place. */
    private static boolean edge(String text, int place) {
        if (place < 0 || place >= text.length()) {
            return true;
        }
        boolean low = Character.isLowSurrogate(text.charAt(place)) && place > 0;
        int point = text.codePointAt(low ? place - 1 : place);
        int word = Unicode.mask("L") | Unicode.mask("M") | Unicode.mask("Nd") | Unicode.mask("Pc");
        return !Unicode.is(point, word);
    }
}
