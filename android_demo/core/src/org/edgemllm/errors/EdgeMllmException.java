package org.edgemllm.errors;

/**
 * Base of all errors of this library; its text is one line that says what was wrong and what to do. What files and
 * names brought along is made so: no line breaks, no control characters, no end of pages.
 */
public class EdgeMllmException extends RuntimeException {
    private static final long serialVersionUID = 1L;
    private static final int LONGEST = 1500;

    public EdgeMllmException(String message) {
        super(shown(message));
    }

    public EdgeMllmException(String message, Throwable cause) {
        super(shown(message), cause);
    }

    private static String shown(String message) {
        StringBuilder line = new StringBuilder();
        for (int at = 0; at < message.length() && line.length() < LONGEST;) {
            int point = message.codePointAt(at);
            at += Character.charCount(point);
            int type = Character.getType(point);
            boolean breaks = type == Character.LINE_SEPARATOR || type == Character.PARAGRAPH_SEPARATOR
                || point >= '\t' && point <= '\r' || point == 0x85;
            if (breaks) {
                line.append(' ');
            } else if (type == Character.CONTROL || type == Character.SURROGATE) {
                line.append('?');
            } else {
                line.appendCodePoint(point);
            }
        }
        return line.length() < LONGEST ? line.toString() : line.append("...").toString();
    }

    /** The text of any error on one line, at most 200 characters. */
    public static String line(Throwable error) {
        String text = error.getMessage() == null ? error.getClass().getSimpleName() : error.getMessage();
        text = text.trim().replaceAll("\\s+", " ");
        return text.length() > 200 ? text.substring(0, 200) : text;
    }
}
