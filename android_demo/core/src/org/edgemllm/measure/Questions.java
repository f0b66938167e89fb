package org.edgemllm.measure;

import java.util.Collections;

import org.edgemllm.answer.Model;
import org.edgemllm.answer.Picture;
import org.edgemllm.prompt.Message;

/** Questions of a wanted length that share no beginning. */
final class Questions {
    private static final String[] WORDS = {
        "what", "is", "written", "on", "the", "sign", "next", "to", "a", "door", "and", "how", "many", "people", "are",
        "there", "in", "front", "of", "it", "tell", "me", "which", "colour", "each", "one", "has", "then", "say", "why"};

    private final Model model;
    private final int tokens;

    Questions(Model model, int tokens) {
        this.model = model;
        this.tokens = tokens;
    }

    /** At least so many tokens and at most one word more; the number comes first. */
    String of(int number) {
        int low = 1;
        int high = tokens + 1;
        while (low < high) {
            int middle = (low + high) / 2;
            if (count(words(number, middle)) >= tokens) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        return words(number, low);
    }

    private static String words(int number, int count) {
        StringBuilder text = new StringBuilder().append(number);
        for (int i = 0; i < count - 1; i++) {
            text.append(' ').append(WORDS[i % WORDS.length]);
        }
        return text.toString();
    }

    /** Tokens that a text adds to a prompt. */
    private int count(String text) {
        return length(text) - length("0") + 1;
    }

    private int length(String text) {
        return model.prompt(Message.question(null, text, 0), Collections.<Picture>emptyList()).ids.length;
    }
}
