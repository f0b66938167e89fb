package org.edgemllm.json;

/** A field of a JSON document that does not have the type that is expected. */
public final class FieldException extends Exception {
    private static final long serialVersionUID = 1L;

    public FieldException(String where, String reason) {
        super(where.isEmpty() ? reason : where + ": " + reason);
    }
}
