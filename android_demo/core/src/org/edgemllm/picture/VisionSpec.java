package org.edgemllm.picture;

/** The tower's contract: tiles of one size in, or patches of a picture of any size. */
public final class VisionSpec {
    public final int tokensPerTile;
    public final int tileHeight;
    public final int tileWidth;
    /** null for a tower that takes tiles. */
    public final PatchInput patches;

    public VisionSpec(int tokensPerTile, int tileHeight, int tileWidth, PatchInput patches) {
        this.tokensPerTile = tokensPerTile;
        this.tileHeight = tileHeight;
        this.tileWidth = tileWidth;
        this.patches = patches;
    }
}
