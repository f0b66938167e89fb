package org.edgemllm.bundle;

/** How messages and pictures become token ids. */
public final class PromptSpec {
    /** The token that is repeated once per visual token. */
    public String imageToken;
    public int imageTokenId;
    /** What the chat template writes for one picture. */
    public String placeholder;
    public TileLayout layout;
    public int[] stopTokenIds;
    /** Prepended when the tokenizer does not do it itself and the model's processor does; else null. */
    public Integer bosTokenId;
    /** The text of the begin token as the chat template may have written it; null where there is none. */
    public String bosToken;
    /** null in a bundle whose chat template cannot be written as pieces, or that was exported before there were any. */
    public Turns turns;

    /** Whether a token ends the model's turn. */
    public boolean stopsAt(int token) {
        for (int id : stopTokenIds) {
            if (id == token) {
                return true;
            }
        }
        return false;
    }
}
