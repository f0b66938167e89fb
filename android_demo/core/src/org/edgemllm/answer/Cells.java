package org.edgemllm.answer;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import org.edgemllm.engine.Decoder;
import org.edgemllm.engine.Segment;
import org.edgemllm.prompt.PromptIds;
import org.edgemllm.prompt.Slot;

/** What lies in the decoder's cache, cell by cell, so that a new prompt computes only what differs from the last one. */
final class Cells {
    private static final long VISUAL = 1L << 62;

    /** A token id, or a picture's number with the number of the visual token in it. */
    private List<Long> keys = new ArrayList<Long>();
    private final Map<String, Integer> numbers = new HashMap<String, Integer>();

    /** One key for each token of a prompt. */
    List<Long> keysOf(PromptIds prompt, List<Picture> pictures) {
        List<Long> found = new ArrayList<Long>();
        for (int id : prompt.ids) {
            found.add((long) id);
        }
        for (int i = 0; i < pictures.size(); i++) {
            Slot slot = prompt.slots.get(i);
            String digest = pictures.get(i).digest();
            Integer number = numbers.get(digest);
            if (number == null) {
                number = numbers.size();
                numbers.put(digest, number);
            }
            long visual = 0;
            for (int place = slot.start; place < slot.end(); place++) {
                if (prompt.ids[place] == prompt.imageTokenId) {
                    found.set(place, VISUAL | (long) number << 31 | visual++);
                }
            }
        }
        return found;
    }

    /**
     * How many cells of a new prompt can be kept; one is always left to compute.
     *
     * @param borders cell counts at which the cache may be cut; null allows any place outside a picture's tokens
     */
    int kept(List<Long> wanted, List<Integer> borders) {
        int common = 0;
        int most = Math.min(keys.size(), wanted.size() - 1);
        while (common < most && keys.get(common).equals(wanted.get(common))) {
            common++;
        }
        if (borders != null) {
            int best = 0;
            for (int border : borders) {
                best = border <= common ? Math.max(best, border) : best;
            }
            common = best;
        }
        while (common > 0 && common < wanted.size() && wanted.get(common) >= VISUAL
            && wanted.get(common - 1) >= VISUAL) {
            common--;
        }
        return common;
    }

    /** Cut the cache back to the first cells. */
    void cut(Decoder decoder, int count) {
        keys = new ArrayList<Long>(keys.subList(0, count));
        decoder.truncate(count);
    }

    /** Append a prompt's rest, split at the borders; return the logits of the last position. */
    float[] prefill(Decoder decoder, List<Long> wanted, List<Segment> segments, List<Integer> borders) {
        float[] logits = null;
        List<Segment> group = new ArrayList<Segment>();
        int end = keys.size();
        for (int i = 0; i < segments.size(); i++) {
            group.add(segments.get(i));
            end += segments.get(i).length;
            if (borders.contains(end) || i == segments.size() - 1) {
                logits = decoder.prefill(group);
                keys.addAll(wanted.subList(keys.size(), end));
                group = new ArrayList<Segment>();
            }
        }
        return logits;
    }

    /** Append one generated token; return its logits. */
    float[] step(Decoder decoder, int token) {
        float[] logits = decoder.step(token);
        keys.add((long) token);
        return logits;
    }

    /** Forget what the cache holds. */
    void clear() {
        keys = new ArrayList<Long>();
    }
}
