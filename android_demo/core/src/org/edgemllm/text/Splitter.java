package org.edgemllm.text;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** Cuts a text at the matches of a pattern, as the tokenizers library's Split does. */
final class Splitter {
    /** Finds the matches in a text. */
    interface Finder {
        /** End of the match that begins at a place, or -1. */
        int match(int[] text, int at);
    }

    private final Finder finder;
    private final String behavior;
    private final boolean inverted;

    /** {@code behavior} is Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous. */
    Splitter(Finder finder, String behavior, boolean inverted) {
        this.finder = finder;
        this.behavior = behavior;
        this.inverted = inverted;
    }

    static boolean knows(String behavior) {
        return behavior.equals("Isolated") || behavior.equals("Removed") || behavior.equals("MergedWithPrevious")
            || behavior.equals("MergedWithNext") || behavior.equals("Contiguous");
    }

    /** Finds a fixed text. */
    static Finder literal(String wanted) {
        final int[] points = Unicode.points(wanted);
        return new Finder() {
            @Override
            public int match(int[] text, int at) {
                for (int i = 0; i < points.length; i++) {
                    if (at + i >= text.length || text[at + i] != points[i]) {
                        return -1;
                    }
                }
                return at + points.length;
            }
        };
    }

    /** Finds what a regular expression matches. */
    static Finder regex(String source) {
        final Pattern pattern = new Pattern(source);
        return new Finder() {
            @Override
            public int match(int[] text, int at) {
                return pattern.match(text, at);
            }
        };
    }

    /** Finds single characters of some categories. */
    static Finder categories(final int mask) {
        return new Finder() {
            @Override
            public int match(int[] text, int at) {
                return at < text.length && Unicode.is(text[at], mask) ? at + 1 : -1;
            }
        };
    }

    /** The pieces of a text, none of them empty. */
    List<String> split(String piece) {
        int[] text = Unicode.points(piece);
        List<int[]> parts = arranged(spans(text));
        List<String> found = new ArrayList<String>();
        for (int[] part : parts) {
            if (part[1] > part[0]) {
                found.add(new String(text, part[0], part[1] - part[0]));
            }
        }
        return found;
    }

    /** A text in which every match is another text. */
    String replaced(String piece, String by) {
        int[] text = Unicode.points(piece);
        StringBuilder out = new StringBuilder();
        for (int[] span : spans(text)) {
            if (span[2] == 1) {
                out.append(by);
            } else {
                out.append(new String(text, span[0], span[1] - span[0]));
            }
        }
        return out.toString();
    }

    /** Start, end and whether it is a match, over the whole text. */
    private List<int[]> spans(int[] text) {
        List<int[]> spans = new ArrayList<int[]>();
        int done = 0;
        int at = 0;
        int match = inverted ? 0 : 1;
        while (at < text.length) {
            int end = finder.match(text, at);
            if (end <= at) {
                at++;
                continue;
            }
            if (at > done) {
                spans.add(new int[] {done, at, 1 - match});
            }
            spans.add(new int[] {at, end, match});
            done = end;
            at = end;
        }
        if (done < text.length) {
            spans.add(new int[] {done, text.length, 1 - match});
        }
        return spans;
    }

    private List<int[]> arranged(List<int[]> spans) {
        if (behavior.equals("Isolated")) {
            return spans;
        }
        boolean backwards = behavior.equals("MergedWithNext");
        List<int[]> order = new ArrayList<int[]>(spans);
        if (backwards) {
            Collections.reverse(order);
        }
        List<int[]> out = new ArrayList<int[]>();
        int previous = behavior.equals("Contiguous") ? -1 : 0;
        for (int[] span : order) {
            boolean joins = behavior.equals("Contiguous") ? span[2] == previous : span[2] == 1 && previous == 0;
            if (behavior.equals("Removed")) {
                if (span[2] == 0) {
                    out.add(span);
                }
            } else if (joins && !out.isEmpty()) {
                int[] last = out.get(out.size() - 1);
                last[backwards ? 0 : 1] = span[backwards ? 0 : 1];
            } else {
                out.add(new int[] {span[0], span[1]});
            }
            previous = span[2];
        }
        if (backwards) {
            Collections.reverse(out);
        }
        return out;
    }
}
