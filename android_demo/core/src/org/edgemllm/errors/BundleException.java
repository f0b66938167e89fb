package org.edgemllm.errors;

/** A bundle is damaged or does not mean anything. */
public class BundleException extends EdgeMllmException {
    private static final long serialVersionUID = 1L;

    public BundleException(Object path, String reason) {
        super("bad bundle '" + path + "': " + reason);
    }
}
