package org.edgemllm.text;

import java.util.ArrayList;
import java.util.List;

/** A set of code points of a pattern: ranges, categories and other sets, perhaps turned round. */
final class CodeSet {
    private final List<int[]> ranges = new ArrayList<int[]>();
    private final List<CodeSet> others = new ArrayList<CodeSet>();
    private int mask;
    private boolean spaces;
    private boolean negated;
    private boolean ignoresCase;

    static CodeSet of(int point) {
        return new CodeSet().add(point, point);
    }

    static CodeSet categories(int mask) {
        CodeSet set = new CodeSet();
        set.mask = mask;
        return set;
    }

    /** What {@code \s} means. */
    static CodeSet whiteSpace() {
        CodeSet set = new CodeSet();
        set.spaces = true;
        return set;
    }

    CodeSet add(int first, int last) {
        ranges.add(new int[] {first, last});
        return this;
    }

    CodeSet add(CodeSet other) {
        others.add(other);
        return this;
    }

    CodeSet negate() {
        negated = !negated;
        return this;
    }

    CodeSet ignoreCase(boolean ignores) {
        ignoresCase = ignores;
        return this;
    }

    boolean has(int point) {
        boolean found = holds(point);
        if (!found && ignoresCase) {
            int upper = Character.toUpperCase(point);
            found = holds(upper) || holds(Character.toLowerCase(point)) || holds(Character.toLowerCase(upper));
        }
        return found != negated;
    }

    private boolean holds(int point) {
        if (mask != 0 && Unicode.is(point, mask) || spaces && Unicode.isSpace(point)) {
            return true;
        }
        for (int[] range : ranges) {
            if (point >= range[0] && point <= range[1]) {
                return true;
            }
        }
        for (CodeSet other : others) {
            if (other.has(point)) {
                return true;
            }
        }
        return false;
    }
}
