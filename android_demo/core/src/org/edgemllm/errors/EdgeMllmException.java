package org.edgemllm.errors;

/** Base of all errors of this library; its text is one line that says what was wrong and what to do. */
public class EdgeMllmException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    public EdgeMllmException(String message) {
        super(message);
    }

    public EdgeMllmException(String message, Throwable cause) {
        super(message, cause);
    }

    /** The text of any error on one line, at most 200 characters. */
    public static String line(Throwable error) {
        String text = error.getMessage() == null ? error.getClass().getSimpleName() : error.getMessage();
        text = text.trim().replaceAll("\\s+", " ");
        return text.length() > 200 ? text.substring(0, 200) : text;
    }
}
