package org.edgemllm.text;

import java.util.Arrays;

/**
 * Token ids to text while they arrive, never half a character: a window of tokens is decoded again with each new one,
 * and only what was added is given out, once it ends with a whole character.
 */
public final class TextStream {
    /** Most tokens that are waited for, twice the bytes of the longest character. */
    private static final int MOST_PENDING = 8;

    private final Tokenizer tokenizer;
    private int[] window = new int[0];
    /** Tokens of the window whose text has been given out. */
    private int given;

    public TextStream(Tokenizer tokenizer) {
        this.tokenizer = tokenizer;
    }

    /** Add a token; return the text that is now certain, often "" inside a character. */
    public String push(int token) {
        window = Arrays.copyOf(window, window.length + 1);
        window[window.length - 1] = token;
        String before = decoded(given);
        String after = decoded(window.length);
        if (after.endsWith("\uFFFD") && window.length - given < MOST_PENDING) {
            return "";
        }
        if (length(after) <= length(before)) {
            return "";
        }
        window = Arrays.copyOfRange(window, given, window.length);
        given = window.length;
        return behind(after, length(before));
    }

    /** Return what was held back; bytes that never became a character read as U+FFFD. */
    public String flush() {
        String before = decoded(given);
        String after = decoded(window.length);
        window = new int[0];
        given = 0;
        return behind(after, length(before));
    }

    private String decoded(int count) {
        return count == 0 ? "" : tokenizer.decode(Arrays.copyOf(window, count));
    }

    private static int length(String text) {
        return text.codePointCount(0, text.length());
    }

    /** A text without its first characters. */
    private static String behind(String text, int count) {
        return count >= length(text) ? "" : text.substring(text.offsetByCodePoints(0, count));
    }
}
