package org.edgemllm.prompt;

import java.util.ArrayList;
import java.util.List;

/** One turn of a conversation: who speaks, what is said, and how many pictures go before it. */
public final class Message {
    /** Who speaks. */
    public enum Role { SYSTEM, USER, ASSISTANT }

    public final Role role;
    public final String text;
    public final int pictures;

    private Message(Role role, String text, int pictures) {
        this.role = role;
        this.text = text;
        this.pictures = pictures;
    }

    public static Message system(String text) {
        return new Message(Role.SYSTEM, text, 0);
    }

    /** A user's turn with its pictures before the text. */
    public static Message user(String text, int pictures) {
        return new Message(Role.USER, text, pictures);
    }

    /** The model's own turn. */
    public static Message assistant(String text) {
        return new Message(Role.ASSISTANT, text, 0);
    }

    /** A question by itself: a system message where there is one, then the user's turn with its pictures. */
    public static List<Message> question(String system, String prompt, int pictures) {
        List<Message> messages = new ArrayList<Message>();
        if (system != null) {
            messages.add(system(system));
        }
        messages.add(user(prompt, pictures));
        return messages;
    }
}
