package org.edgemllm.bundle;

/** One file of a bundle. */
public final class Part {
    public final String file;
    public final String sha256;
    public final long bytes;
    public final String precision;

    public Part(String file, String sha256, long bytes, String precision) {
        this.file = file;
        this.sha256 = sha256;
        this.bytes = bytes;
        this.precision = precision;
    }
}
