package org.edgemllm.prompt;

/** One picture's place in the ids: from its first visual token to its last, marks between included. */
public final class Slot {
    public final int start;
    public final int length;
    /** Visual tokens in it, without the marks. */
    public final int visual;

    Slot(int start, int length, int visual) {
        this.start = start;
        this.length = length;
        this.visual = visual;
    }

    public int end() {
        return start + length;
    }
}
