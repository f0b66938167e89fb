package org.edgemllm.prompt;

import java.util.List;

/** A prompt, ready to be spliced. */
public final class PromptIds {
    /** With the image token repeated once per visual token. */
    public final int[] ids;
    /** One per picture, in order. */
    public final List<Slot> slots;
    public final int imageTokenId;
    /** What was tokenised, picture marks written out. */
    public final String text;

    PromptIds(int[] ids, List<Slot> slots, int imageTokenId, String text) {
        this.ids = ids;
        this.slots = slots;
        this.imageTokenId = imageTokenId;
        this.text = text;
    }

    /** Visual tokens of all pictures. */
    public int imageTokens() {
        int sum = 0;
        for (Slot slot : slots) {
            sum += slot.visual;
        }
        return sum;
    }
}
