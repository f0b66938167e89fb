package org.edgemllm.answer;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

import org.edgemllm.engine.Segment;
import org.edgemllm.prompt.PromptIds;
import org.edgemllm.prompt.Slot;

/**
 * Token ids and visual embeddings to the segments a decoder takes. Every unbroken run of image tokens becomes one segment;
 * a run never crosses from one picture into the next.
 */
final class Splice {
    private final PromptIds prompt;
    private final int width;
    private final List<Segment> segments = new ArrayList<Segment>();

    private Splice(PromptIds prompt, int width) {
        this.prompt = prompt;
        this.width = width;
    }

    /**
     * The segments of a prompt without its first {@code kept} cells, which end at a picture's end or in text.
     *
     * @param pictures in order; embeddings of those whose cells are kept are not needed
     */
    static List<Segment> of(PromptIds prompt, List<Picture> pictures, int width, int kept) {
        Splice splice = new Splice(prompt, width);
        int done = kept;
        for (int i = 0; i < pictures.size(); i++) {
            Slot slot = prompt.slots.get(i);
            if (slot.end() <= kept) {
                continue;
            }
            splice.text(done, slot.start);
            splice.picture(slot, pictures.get(i), Math.max(0, kept - slot.start));
            done = slot.end();
        }
        splice.text(done, prompt.ids.length);
        return splice.segments;
    }

    private void text(int start, int end) {
        if (end > start) {
            segments.add(Segment.tokens(Arrays.copyOfRange(prompt.ids, start, end)));
        }
    }

    private void picture(Slot slot, Picture picture, int skipped) {
        int used = 0;
        for (int i = slot.start; i < slot.start + skipped; i++) {
            used += prompt.ids[i] == prompt.imageTokenId ? 1 : 0;
        }
        int start = slot.start + skipped;
        while (start < slot.end()) {
            boolean visual = prompt.ids[start] == prompt.imageTokenId;
            int end = start;
            while (end < slot.end() && (prompt.ids[end] == prompt.imageTokenId) == visual) {
                end++;
            }
            if (visual) {
                int count = end - start;
                float[] rows = Arrays.copyOfRange(picture.embeddings(), used * width, (used + count) * width);
                segments.add(Segment.visual(rows, count, picture.plan.tokenGrid));
                used += count;
            } else {
                text(start, end);
            }
            start = end;
        }
    }
}
