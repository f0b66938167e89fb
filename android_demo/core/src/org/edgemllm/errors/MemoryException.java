package org.edgemllm.errors;

/** What was asked for does not fit the memory that this process may have. */
public class MemoryException extends EdgeMllmException {
    private static final long serialVersionUID = 1L;

    public MemoryException(String what, Throwable cause) {
        super("there is not enough memory for " + what + "; use low detail, fewer or smaller pictures, low memory or a "
            + "smaller model", cause);
    }
}
