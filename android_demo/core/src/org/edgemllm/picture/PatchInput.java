package org.edgemllm.picture;

/** Input of a tower that takes a picture of any size as a list of patches. */
public final class PatchInput {
    /** Side of a patch in pixels. */
    public final int patch;
    /** merge x merge neighbouring patches become one visual token. */
    public final int merge;
    /** Moments in time that one patch covers; a picture repeats itself. */
    public final int frames;
    /** Side, in patches, of the squares within which some layers attend; null where every layer sees all. */
    public final Integer window;

    public PatchInput(int patch, int merge, int frames, Integer window) {
        this.patch = patch;
        this.merge = merge;
        this.frames = frames;
        this.window = window;
    }

    /** Numbers in one packed patch. */
    public int values() {
        return 3 * frames * patch * patch;
    }
}
