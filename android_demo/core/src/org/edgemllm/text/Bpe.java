package org.edgemllm.text;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;

import org.edgemllm.json.FieldException;
import org.edgemllm.json.Fields;

/** Byte-pair encoding of one piece of text, merge for merge as the tokenizers library does it. */
final class Bpe {
    private final Map<String, Integer> vocabulary = new HashMap<String, Integer>();
    private final LongMap merges;
    private final Integer unknown;
    private final boolean fusesUnknown;
    private final boolean ignoresMerges;
    /** Tokens of single bytes, for characters that are no tokens; null where there are none. */
    private final int[] bytes;

    Bpe(Fields model) throws FieldException {
        model.choice("type", "BPE");
        for (String name : new String[] {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
            if (model.has(name) && !"".equals(model.any(name))) {
                throw new FieldException(model.path(name), "this version does not know it");
            }
        }
        Fields listed = model.object("vocab");
        for (String token : listed.names()) {
            vocabulary.put(token, listed.whole(token));
        }
        unknown = model.has("unk_token") ? vocabulary.get(model.text("unk_token")) : null;
        fusesUnknown = model.has("fuse_unk") && model.flag("fuse_unk", false);
        ignoresMerges = model.has("ignore_merges") && model.flag("ignore_merges", false);
        bytes = model.has("byte_fallback") && model.flag("byte_fallback", false) ? byteTokens() : null;
        merges = read(model.list("merges"));
    }

    Map<String, Integer> vocabulary() {
        return vocabulary;
    }

    /** Append the ids of a piece. */
    void encode(String piece, IntList out) {
        Integer whole = ignoresMerges ? vocabulary.get(piece) : null;
        if (whole != null) {
            out.add(whole);
            return;
        }
        merge(symbols(piece), out);
    }

    private LongMap read(List<?> lines) throws FieldException {
        LongMap found = new LongMap(lines.size());
        for (int rank = 0; rank < lines.size(); rank++) {
            Object line = lines.get(rank);
            String[] pair = pair(line);
            String left = pair[0];
            String right = pair[1];
            Integer one = vocabulary.get(left);
            Integer other = vocabulary.get(right);
            Integer both = vocabulary.get(left + right);
            if (one == null || other == null || both == null) {
                throw new FieldException("model.merges", "'" + left + " " + right + "' is not in the vocabulary");
            }
            found.put(LongMap.pair(one, other), (long) rank << 32 | both);
        }
        return found;
    }

    /** Both tokens of a merge: with a blank between, or as a list. */
    private static String[] pair(Object line) throws FieldException {
        if (line instanceof String) {
            int space = ((String) line).indexOf(' ');
            String left = ((String) line).substring(0, Math.max(space, 0));
            return new String[] {left, ((String) line).substring(space + 1)};
        }
        List<?> both = line instanceof List ? (List<?>) line : new ArrayList<Object>();
        if (both.size() != 2 || !(both.get(0) instanceof String) || !(both.get(1) instanceof String)) {
            throw new FieldException("model.merges", "a merge is no pair of tokens");
        }
        return new String[] {(String) both.get(0), (String) both.get(1)};
    }

    private int[] byteTokens() {
        int[] found = new int[256];
        for (int value = 0; value < 256; value++) {
            Integer id = vocabulary.get(String.format("<0x%02X>", value));
            found[value] = id == null ? -1 : id;
        }
        return found;
    }

    /** The tokens of single characters that a piece begins with. */
    private IntList symbols(String piece) {
        IntList found = new IntList();
        boolean pending = false;
        int at = 0;
        while (at < piece.length()) {
            int end = at + Character.charCount(piece.codePointAt(at));
            String character = piece.substring(at, end);
            at = end;
            Integer id = vocabulary.get(character);
            if (id != null) {
                pending = flush(pending, found);
                found.add(id);
            } else if (bytes == null || !addBytes(character, found)) {
                // Several unknown characters in a row are one token where the model says so.
                if (pending && !fusesUnknown) {
                    found.add(unknown);
                }
                pending = unknown != null;
            }
        }
        flush(pending, found);
        return found;
    }

    private boolean flush(boolean pending, IntList found) {
        if (pending) {
            found.add(unknown);
        }
        return false;
    }

    private boolean addBytes(String character, IntList found) {
        byte[] values = character.getBytes(ByteLetters.UTF_8);
        for (byte value : values) {
            if (bytes[value & 255] < 0) {
                return false;
            }
        }
        for (byte value : values) {
            found.add(bytes[value & 255]);
        }
        return true;
    }

    /** Merge pairs, the earliest in the list first, of equals the leftmost. */
    private void merge(IntList symbols, IntList out) {
        int count = symbols.size();
        int[] ids = symbols.toArray();
        int[] next = new int[count];
        int[] previous = new int[count];
        PriorityQueue<Candidate> queue = new PriorityQueue<Candidate>();
        for (int i = 0; i < count; i++) {
            next[i] = i + 1;
            previous[i] = i - 1;
            offer(queue, ids, i, i + 1);
        }
        while (!queue.isEmpty()) {
            Candidate best = queue.poll();
            int right = ids[best.place] >= 0 ? next[best.place] : count;
            long now = right >= count ? -1 : merges.get(LongMap.pair(ids[best.place], ids[right]));
            if (now < 0 || (int) now != (int) best.merge) {
                continue; // one of the two was merged with another before; what makes the same token counts as it
            }
            ids[best.place] = (int) best.merge;
            ids[right] = -1;
            next[best.place] = next[right];
            if (next[right] < count) {
                previous[next[right]] = best.place;
                offer(queue, ids, best.place, next[right]);
            }
            if (previous[best.place] >= 0) {
                offer(queue, ids, previous[best.place], best.place);
            }
        }
        for (int i = 0; i < count; i = next[i]) {
            out.add(ids[i]);
        }
    }

    private void offer(PriorityQueue<Candidate> queue, int[] ids, int left, int right) {
        long merge = right < ids.length ? merges.get(LongMap.pair(ids[left], ids[right])) : -1;
        if (merge >= 0) {
            queue.add(new Candidate(left, merge));
        }
    }

    /** A pair that may be merged: its left place, and rank and new token in one number. */
    private static final class Candidate implements Comparable<Candidate> {
        final int place;
        final long merge;

        Candidate(int place, long merge) {
            this.place = place;
            this.merge = merge;
        }

        @Override
        public int compareTo(Candidate other) {
            int byRank = Long.compare(merge >>> 32, other.merge >>> 32);
            return byRank != 0 ? byRank : Integer.compare(place, other.place);
        }
    }
}
