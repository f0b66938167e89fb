package org.edgemllm.picture;

/** The tokens of all tiles become one map, its padding is cut off, and every row ends with the newline embedding. */
public final class Stitch {
    /** A map with clearly more tokens than so many tiles have is shrunk; null keeps it as it is. */
    public final Integer maxTiles;
    /** Nothing is cut off and there is no newline. */
    public final boolean plain;

    public Stitch(Integer maxTiles, boolean plain) {
        this.maxTiles = maxTiles;
        this.plain = plain;
    }
}
