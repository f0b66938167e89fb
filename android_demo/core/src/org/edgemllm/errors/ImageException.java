package org.edgemllm.errors;

/** A picture that cannot be used. */
public class ImageException extends EdgeMllmException {
    private static final long serialVersionUID = 1L;

    public ImageException(String source, String reason) {
        super("cannot use picture " + source + ": " + reason);
    }

    /** The same for a picture that is known by its size only. */
    public static ImageException ofSize(int width, int height, String reason) {
        return new ImageException("of " + width + "x" + height + " pixels", reason);
    }
}
