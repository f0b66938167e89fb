package org.edgemllm.errors;

/** A prompt the model cannot take: too long, another number of pictures, or not what its turns can express. */
public class PromptException extends EdgeMllmException {
    private static final long serialVersionUID = 1L;

    public PromptException(String message) {
        super(message);
    }

    /** Prompt, pictures and answer do not fit the context. */
    public static PromptException overflow(long needed, int capacity, long imageTokens) {
        return new PromptException("the prompt needs " + needed + " tokens (" + imageTokens
            + " of them for pictures) but the context holds " + capacity
            + "; use --detail low, --max-image-tokens, fewer pictures or a shorter prompt");
    }
}
