package org.edgemllm.text;

import java.util.List;

import org.edgemllm.errors.EngineException;

/**
 * A regular expression as pre-tokenizers have them, matched with backtracking over code points. Java's own engine is not
 * used: its classes of characters differ from phone to phone.
 */
final class Pattern {
    private final Node start;
    private final Effort effort = new Effort();

    Pattern(String source) {
        start = new PatternParser(source, effort).parse();
    }

    /** End of the match that begins at a place, -1 where there is none. */
    int match(int[] text, int at) {
        effort.steps = 0;
        return start.match(text, at);
    }

    /** Counts the ways that one match tries: with many repetitions behind each other there can be endlessly many. */
    static final class Effort {
        private static final int MOST = 1 << 20;
        private int steps;

        void spend() {
            if (++steps > MOST) {
                throw new EngineException("the tokenizer's pattern tries more than " + MOST + " ways at one place of "
                    + "the text; the model's tokenizer is damaged");
            }
        }
    }

    /** A part of the pattern that hands on to what follows it. */
    abstract static class Node {
        Node next;

        abstract int match(int[] text, int at);
    }

    /** The end of the pattern, or of what is looked ahead for. */
    static final class Accept extends Node {
        @Override
        int match(int[] text, int at) {
            return at;
        }
    }

    /** Some characters of a set, as many as there are or as few as do. */
    static final class Repeat extends Node {
        private final CodeSet set;
        private final int least;
        private final int most;
        private final char kind;
        private final Effort effort;

        /** {@code kind}: ' ' greedy, '?' lazy, '+' possessive. */
        Repeat(CodeSet set, int least, int most, char kind, Effort effort) {
            this.effort = effort;
            this.set = set;
            this.least = least;
            this.most = most;
            this.kind = kind;
        }

        @Override
        int match(int[] text, int at) {
            int end = at;
            int limit = (int) Math.min((long) at + (kind == '?' ? least : most), text.length);
            while (end < limit && set.has(text[end])) {
                end++;
            }
            if (end - at < least) {
                return -1;
            }
            if (kind == '?') {
                return lazy(text, at, end);
            }
            int last = kind == '+' ? end : at + least;
            for (int stop = end; stop >= last; stop--) {
                effort.spend();
                int found = next.match(text, stop);
                if (found >= 0) {
                    return found;
                }
            }
            return -1;
        }

        private int lazy(int[] text, int at, int from) {
            for (int end = from; end - at <= most; end++) {
                effort.spend();
                int found = next.match(text, end);
                if (found >= 0) {
                    return found;
                }
                if (end >= text.length || !set.has(text[end])) {
                    return -1;
                }
            }
            return -1;
        }
    }

    /** The first of several ways that leads to a match. */
    static final class Choice extends Node {
        private final List<Node> ways;

        Choice(List<Node> ways) {
            this.ways = ways;
        }

        @Override
        int match(int[] text, int at) {
            for (Node way : ways) {
                int found = way.match(text, at);
                if (found >= 0) {
                    return found;
                }
            }
            return -1;
        }
    }

    /** Nothing, between the parts of a pattern. */
    static final class Pass extends Node {
        @Override
        int match(int[] text, int at) {
            return next.match(text, at);
        }
    }

    /** What must follow, or must not, without being part of the match. */
    static final class Look extends Node {
        private final Node body;
        private final boolean wanted;

        Look(Node body, boolean wanted) {
            this.body = body;
            this.wanted = wanted;
        }

        @Override
        int match(int[] text, int at) {
            return body.match(text, at) >= 0 == wanted ? next.match(text, at) : -1;
        }
    }

    /** The beginning or the end of the text. */
    static final class Edge extends Node {
        private final boolean end;

        Edge(boolean end) {
            this.end = end;
        }

        @Override
        int match(int[] text, int at) {
            return at == (end ? text.length : 0) ? next.match(text, at) : -1;
        }
    }
}
