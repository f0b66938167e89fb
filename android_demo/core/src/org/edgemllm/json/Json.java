package org.edgemllm.json;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;

/**
 * Reads JSON (RFC 8259). Values are Map, List, String, Long, Double, Boolean and null; whole numbers without a point or
 * an exponent are Long, as Python keeps them apart.
 */
public final class Json {
    /** Far more than bundles and tokenizers have, and little enough for the stack of a phone's thread. */
    private static final int MAX_DEPTH = 64;
    private static final Pattern NUMBER = Pattern.compile("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?");

    private final String text;
    private int place;
    private int depth;

    private Json(String text) {
        this.text = text;
    }

    /** What is wrong with a text that is not JSON. */
    public static final class JsonException extends Exception {
        private static final long serialVersionUID = 1L;

        JsonException(String message, int place) {
            super(message + " (character " + place + ")");
        }
    }

    /** Parse a whole text. */
    public static Object parse(String text) throws JsonException {
        Json reader = new Json(text);
        Object value = reader.value();
        reader.skipSpace();
        if (reader.place < text.length()) {
            throw reader.wrong("there is more behind the value");
        }
        return value;
    }

    private Object value() throws JsonException {
        skipSpace();
        if (place >= text.length()) {
            throw wrong("it ends too early");
        }
        char first = text.charAt(place);
        if (first == '"') {
            return string();
        }
        if (first == '{' || first == '[') {
            if (++depth > MAX_DEPTH) {
                throw wrong("it is nested too deeply");
            }
            Object found = first == '{' ? object() : array();
            depth--;
            return found;
        }
        if (first == '-' || (first >= '0' && first <= '9')) {
            return number();
        }
        return word();
    }

    private Map<String, Object> object() throws JsonException {
        Map<String, Object> found = new LinkedHashMap<String, Object>();
        place++;
        if (next('}')) {
            return found;
        }
        do {
            skipSpace();
            if (place >= text.length() || text.charAt(place) != '"') {
                throw wrong("a name is expected");
            }
            String name = string();
            expect(':');
            found.put(name, value());
        } while (next(','));
        expect('}');
        return found;
    }

    private List<Object> array() throws JsonException {
        List<Object> found = new ArrayList<Object>();
        place++;
        if (next(']')) {
            return found;
        }
        do {
            found.add(value());
        } while (next(','));
        expect(']');
        return found;
    }

    private String string() throws JsonException {
        int start = ++place;
        StringBuilder built = null;
        while (place < text.length()) {
            char found = text.charAt(place);
            if (found == '"') {
                String rest = text.substring(start, place++);
                return built == null ? rest : built.append(rest).toString();
            }
            if (found < ' ') {
                throw wrong("a control character stands in a string");
            }
            if (found == '\\') {
                built = built == null ? new StringBuilder() : built;
                built.append(text, start, place).append(escaped());
                start = place;
            } else {
                place++;
            }
        }
        throw wrong("a string does not end");
    }

    private char escaped() throws JsonException {
        char kind = place + 1 < text.length() ? text.charAt(place + 1) : ' ';
        place += 2;
        int simple = "\"\\/bfnrt".indexOf(kind);
        if (simple >= 0) {
            return "\"\\/\b\f\n\r\t".charAt(simple);
        }
        if (kind != 'u' || place + 4 > text.length()) {
            throw wrong("an escape is wrong");
        }
        int code = 0;
        for (int i = 0; i < 4; i++) {
            int digit = Character.digit(text.charAt(place++), 16);
            if (digit < 0) {
                throw wrong("an escape is wrong");
            }
            code = code * 16 + digit;
        }
        return (char) code;
    }

    private Object number() throws JsonException {
        int start = place;
        boolean whole = true;
        while (place < text.length() && "+-.eE0123456789".indexOf(text.charAt(place)) >= 0) {
            whole &= ".eE".indexOf(text.charAt(place)) < 0;
            place++;
        }
        String digits = text.substring(start, place);
        if (!NUMBER.matcher(digits).matches()) {
            throw wrong("'" + digits + "' is not a number");
        }
        try {
            return whole ? (Object) Long.valueOf(digits) : (Object) Double.valueOf(digits);
        } catch (NumberFormatException error) {
            throw wrong("'" + digits + "' is too large");
        }
    }

    private Object word() throws JsonException {
        String[] names = {"true", "false", "null"};
        Object[] values = {Boolean.TRUE, Boolean.FALSE, null};
        for (int i = 0; i < names.length; i++) {
            if (text.startsWith(names[i], place)) {
                place += names[i].length();
                return values[i];
            }
        }
        throw wrong("a value is expected");
    }

    private boolean next(char wanted) {
        skipSpace();
        if (place < text.length() && text.charAt(place) == wanted) {
            place++;
            return true;
        }
        return false;
    }

    private void expect(char wanted) throws JsonException {
        if (!next(wanted)) {
            throw wrong("'" + wanted + "' is expected");
        }
    }

    private void skipSpace() {
        while (place < text.length() && " \t\r\n".indexOf(text.charAt(place)) >= 0) {
            place++;
        }
    }

    private JsonException wrong(String reason) {
        return new JsonException(reason, place);
    }
}
