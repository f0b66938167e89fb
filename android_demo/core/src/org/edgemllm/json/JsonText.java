package org.edgemllm.json;

import java.util.Iterator;
import java.util.List;
import java.util.Map;

/** Writes JSON as Python's {@code json.dumps(value, ensure_ascii=False, indent=indent)} does; 0 is a single line. */
public final class JsonText {
    private final StringBuilder out = new StringBuilder();
    private final int indent;

    private JsonText(int indent) {
        this.indent = indent;
    }

    /** The text of Maps, Lists, Strings, numbers, Booleans and nulls. */
    public static String of(Object value, int indent) {
        JsonText writer = new JsonText(indent);
        writer.write(value, 0);
        return writer.out.toString();
    }

    private void write(Object value, int level) {
        if (value instanceof Map) {
            writeMap((Map<?, ?>) value, level);
        } else if (value instanceof List) {
            writeList((List<?>) value, level);
        } else if (value instanceof String) {
            writeString((String) value);
        } else if (value instanceof int[]) {
            writeInts((int[]) value);
        } else {
            out.append(value);
        }
    }

    private void writeMap(Map<?, ?> map, int level) {
        out.append('{');
        Iterator<? extends Map.Entry<?, ?>> entries = map.entrySet().iterator();
        while (entries.hasNext()) {
            Map.Entry<?, ?> entry = entries.next();
            newLine(level + 1);
            writeString(String.valueOf(entry.getKey()));
            out.append(": ");
            write(entry.getValue(), level + 1);
            separate(entries.hasNext());
        }
        end(map.isEmpty(), level, '}');
    }

    private void writeList(List<?> list, int level) {
        out.append('[');
        Iterator<?> items = list.iterator();
        while (items.hasNext()) {
            newLine(level + 1);
            write(items.next(), level + 1);
            separate(items.hasNext());
        }
        end(list.isEmpty(), level, ']');
    }

    /** Token ids: always on one line. */
    private void writeInts(int[] values) {
        out.append('[');
        for (int i = 0; i < values.length; i++) {
            out.append(i == 0 ? "" : ", ").append(values[i]);
        }
        out.append(']');
    }

    private void separate(boolean more) {
        if (more) {
            out.append(indent > 0 ? "," : ", ");
        }
    }

    private void end(boolean empty, int level, char bracket) {
        if (!empty) {
            newLine(level);
        }
        out.append(bracket);
    }

    private void newLine(int level) {
        if (indent > 0) {
            out.append('\n');
            for (int i = 0; i < level * indent; i++) {
                out.append(' ');
            }
        }
    }

    private void writeString(String text) {
        out.append('"');
        for (int i = 0; i < text.length(); i++) {
            char found = text.charAt(i);
            int simple = "\"\\\b\f\n\r\t".indexOf(found);
            if (simple >= 0) {
                out.append('\\').append("\"\\bfnrt".charAt(simple));
            } else if (found < ' ') {
                out.append(String.format("\\u%04x", (int) found));
            } else {
                out.append(found);
            }
        }
        out.append('"');
    }
}
