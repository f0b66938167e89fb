package org.edgemllm.errors;

/** ONNX Runtime, or a graph of the bundle, failed. */
public class EngineException extends EdgeMllmException {
    private static final long serialVersionUID = 1L;

    public EngineException(String message) {
        super(message);
    }

    public EngineException(String message, Throwable cause) {
        super(message, cause);
    }
}
