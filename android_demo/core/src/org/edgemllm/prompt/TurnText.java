package org.edgemllm.prompt;

import java.util.List;

import org.edgemllm.bundle.PromptSpec;
import org.edgemllm.bundle.Turns;
import org.edgemllm.bundle.UserStart;
import org.edgemllm.errors.PromptException;

/**
 * What the model's chat template would write, put together from the pieces that the export made of it. Conversations
 * that the pieces cannot express are refused: they begin with the user or a system message, speakers take turns, and
 * the user has the last word.
 */
public final class TurnText {
    private final Turns turns;

    public TurnText(PromptSpec spec) {
        if (spec.turns == null) {
            throw new PromptException("the bundle has no turns of its chat template, which the phone needs; export the "
                + "model again, and where edge-mllm inspect then says why there are none, use the Python runtime");
        }
        turns = spec.turns;
    }

    /** The text of a conversation, a placeholder for each picture in it. */
    public String render(List<Message> messages) {
        String system = null;
        int at = 0;
        if (!messages.isEmpty() && messages.get(0).role == Message.Role.SYSTEM) {
            system = messages.get(at++).text;
        }
        if (messages.size() == at) {
            throw new PromptException("there is no message");
        }
        StringBuilder text = new StringBuilder();
        boolean users = true;
        boolean first = true;
        for (; at < messages.size(); at++) {
            Message message = messages.get(at);
            if (message.role != (users ? Message.Role.USER : Message.Role.ASSISTANT)) {
                throw new PromptException("the turns of user and model must alternate, beginning with the user's");
            }
            if (users) {
                addUser(text, message, first, system);
            } else {
                text.append(turns.answer).append(cleaned(message.text, turns.trimsReply));
            }
            first = false;
            users = !users;
        }
        if (users) {
            throw new PromptException("the last turn must be the user's");
        }
        return text.append(turns.ask).toString();
    }

    private void addUser(StringBuilder text, Message message, boolean first, String system) {
        boolean pictures = message.pictures > 0;
        UserStart start = pictures ? turns.laterPictures : turns.later;
        if (first && system != null) {
            start = pictures ? turns.systemPictures : turns.system;
            if (start == null) {
                throw new PromptException("this model's chat template takes no system message");
            }
            text.append(start.beforeSystem).append(cleaned(system, turns.trimsSystem));
        } else if (first) {
            start = pictures ? turns.firstPictures : turns.first;
        }
        text.append(start.before);
        for (int i = 0; i < message.pictures; i++) {
            text.append(start.picture);
        }
        text.append(start.beforeText).append(cleaned(message.text, turns.trimsUser));
    }

    /** A text without white space at its ends, as Jinja's trim (Python's strip) takes it off. */
    private static String cleaned(String text, boolean trims) {
        if (!trims) {
            return text;
        }
        int start = 0;
        int end = text.length();
        while (start < end && isSpace(text.charAt(start))) {
            start++;
        }
        while (end > start && isSpace(text.charAt(end - 1))) {
            end--;
        }
        return text.substring(start, end);
    }

    /** What Python counts as white space. */
    private static boolean isSpace(char found) {
        return found >= 9 && found <= 13 || found >= 0x1C && found <= 0x20 || found == 0x85 || found == 0xA0
            || found == 0x1680 || found >= 0x2000 && found <= 0x200A || found == 0x2028 || found == 0x2029
            || found == 0x202F || found == 0x205F || found == 0x3000;
    }
}
