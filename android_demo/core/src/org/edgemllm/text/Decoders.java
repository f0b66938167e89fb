package org.edgemllm.text;

import java.io.ByteArrayOutputStream;
import java.util.ArrayList;
import java.util.List;

import org.edgemllm.json.FieldException;
import org.edgemllm.json.Fields;

/** How tokens become text again: steps of tokenizer.json. */
final class Decoders {
    /** One step: the texts of tokens become others. */
    private interface Step {
        List<String> apply(List<String> tokens);
    }

    private final List<Step> steps = new ArrayList<Step>();

    Decoders(Fields document) throws FieldException {
        if (document.has("decoder")) {
            add(document.object("decoder"));
        } else {
            steps.add(spaced());
        }
    }

    String apply(List<String> tokens) {
        for (Step step : steps) {
            tokens = step.apply(tokens);
        }
        StringBuilder text = new StringBuilder();
        for (String each : tokens) {
            text.append(each);
        }
        return text.toString();
    }

    private void add(Fields fields) throws FieldException {
        String kind = fields.text("type");
        if (kind.equals("Sequence")) {
            for (Object each : fields.list("decoders")) {
                add(Fields.of(each, fields.path("decoders")));
            }
        } else if (kind.equals("ByteLevel")) {
            steps.add(byteLevel());
        } else if (kind.equals("ByteFallback")) {
            steps.add(byteFallback());
        } else if (kind.equals("Fuse")) {
            steps.add(fused());
        } else if (kind.equals("Replace")) {
            steps.add(replace(fields.object("pattern"), fields.text("content")));
        } else if (kind.equals("Strip")) {
            steps.add(strip(fields.text("content"), fields.whole("start"), fields.whole("stop")));
        } else if (kind.equals("Metaspace")) {
            steps.add(metaspace(fields));
        } else {
            throw new FieldException(fields.path("type"), "this version does not know '" + kind + "'");
        }
    }

    private static List<String> single(String text) {
        List<String> one = new ArrayList<String>();
        one.add(text);
        return one;
    }

    /** Without a decoder tokens are divided by spaces. */
    private static Step spaced() {
        return new Step() {
            @Override
            public List<String> apply(List<String> tokens) {
                StringBuilder text = new StringBuilder();
                for (int i = 0; i < tokens.size(); i++) {
                    text.append(i == 0 ? "" : " ").append(tokens.get(i));
                }
                return single(text.toString());
            }
        };
    }

    private static Step fused() {
        return new Step() {
            @Override
            public List<String> apply(List<String> tokens) {
                StringBuilder text = new StringBuilder();
                for (String each : tokens) {
                    text.append(each);
                }
                return single(text.toString());
            }
        };
    }

    private static Step byteLevel() {
        return new Step() {
            @Override
            public List<String> apply(List<String> tokens) {
                ByteArrayOutputStream bytes = new ByteArrayOutputStream();
                for (String token : tokens) {
                    byte[] found = letters(token);
                    bytes.write(found, 0, found.length);
                }
                return single(Utf8.lossy(bytes));
            }
        };
    }

    /** The bytes that a token's letters stand for; of a token with other letters, those of its text. */
    private static byte[] letters(String token) {
        byte[] bytes = new byte[token.length()];
        for (int i = 0; i < bytes.length; i++) {
            int value = ByteLetters.byteOf(token.charAt(i));
            if (value < 0) {
                return token.getBytes(ByteLetters.UTF_8);
            }
            bytes[i] = (byte) value;
        }
        return bytes;
    }

    private static Step byteFallback() {
        return new Step() {
            @Override
            public List<String> apply(List<String> tokens) {
                List<String> out = new ArrayList<String>();
                ByteArrayOutputStream waiting = new ByteArrayOutputStream();
                for (String token : tokens) {
                    int value = byteOf(token);
                    if (value >= 0) {
                        waiting.write(value);
                    } else {
                        flush(waiting, out);
                        out.add(token);
                    }
                }
                flush(waiting, out);
                return out;
            }
        };
    }

    private static int byteOf(String token) {
        if (token.length() != 6 || !token.startsWith("<0x") || !token.endsWith(">")) {
            return -1;
        }
        int high = Character.digit(token.charAt(3), 16);
        int low = Character.digit(token.charAt(4), 16);
        return high < 0 || low < 0 ? -1 : high * 16 + low;
    }

    /** Bytes that are no characters read as one U+FFFD each. */
    private static void flush(ByteArrayOutputStream waiting, List<String> out) {
        byte[] bytes = waiting.toByteArray();
        waiting.reset();
        if (bytes.length == 0) {
            return;
        }
        if (Utf8.isWhole(bytes)) {
            out.add(new String(bytes, ByteLetters.UTF_8));
            return;
        }
        for (int i = 0; i < bytes.length; i++) {
            out.add("\uFFFD");
        }
    }

    private static Step replace(Fields pattern, final String content) throws FieldException {
        final Splitter splitter = new Splitter(PreTokenizers.finder(pattern), "Isolated", false);
        return new Step() {
            @Override
            public List<String> apply(List<String> tokens) {
                List<String> out = new ArrayList<String>();
                for (String token : tokens) {
                    out.add(splitter.replaced(token, content));
                }
                return out;
            }
        };
    }

    private static Step strip(final String content, final int start, final int stop) {
        return new Step() {
            @Override
            public List<String> apply(List<String> tokens) {
                List<String> out = new ArrayList<String>();
                for (String token : tokens) {
                    out.add(stripped(token, content, start, stop));
                }
                return out;
            }
        };
    }

    private static String stripped(String token, String content, int start, int stop) {
        int from = 0;
        while (from < start * content.length() && token.startsWith(content, from)) {
            from += content.length();
        }
        int to = token.length();
        int least = Math.max(from, to - stop * content.length());
        while (to > least && token.substring(from, to).endsWith(content)) {
            to -= content.length();
        }
        return token.substring(from, to);
    }

    private static Step metaspace(Fields fields) throws FieldException {
        final String mark = fields.text("replacement");
        final boolean prefixed = !fields.has("prepend_scheme") || !fields.text("prepend_scheme").equals("never");
        return new Step() {
            @Override
            public List<String> apply(List<String> tokens) {
                List<String> out = new ArrayList<String>();
                for (int i = 0; i < tokens.size(); i++) {
                    String text = tokens.get(i).replace(mark, " ");
                    out.add(i == 0 && prefixed && text.startsWith(" ") ? text.substring(1) : text);
                }
                return out;
            }
        };
    }
}
