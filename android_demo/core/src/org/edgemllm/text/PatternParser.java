package org.edgemllm.text;

import java.util.ArrayList;
import java.util.List;

import org.edgemllm.errors.EngineException;
import org.edgemllm.text.Pattern.Node;

/** Reads a regular expression; what it cannot do, such as a repeated group or a look behind, it refuses. */
final class PatternParser {
    private static final int EVER = Integer.MAX_VALUE;
    /** Longest pattern, and most groups or brackets in each other: matching takes stack for both. */
    private static final int LONGEST = 1024;
    private static final int DEEPEST = 32;

    private final String source;
    private final Pattern.Effort effort;
    private int place;
    private boolean ignoresCase;
    private int depth;

    PatternParser(String source, Pattern.Effort effort) {
        if (source.length() > LONGEST) {
            throw new EngineException("the tokenizer's pattern has " + source.length() + " characters, this version "
                + "takes " + LONGEST);
        }
        this.source = source;
        this.effort = effort;
    }

    Node parse() {
        Node accept = new Pattern.Accept();
        Node start = choice(accept);
        if (place < source.length()) {
            throw unknown();
        }
        return start;
    }

    /** Ways divided by bars; each ends in {@code after}. */
    private Node choice(Node after) {
        List<Node> ways = new ArrayList<Node>();
        do {
            ways.add(sequence(after));
        } while (taken('|'));
        return ways.size() == 1 ? ways.get(0) : new Pattern.Choice(ways);
    }

    private Node sequence(Node after) {
        Node first = new Pattern.Pass();
        Node last = first;
        while (place < source.length() && "|)".indexOf(source.charAt(place)) < 0) {
            Node end = new Pattern.Pass();
            last.next = atom(end);
            last = end;
        }
        last.next = after;
        return first;
    }

    /** One part with its repetition; what it leads to is {@code end}. */
    private Node atom(Node end) {
        char found = source.charAt(place);
        if (found == '(') {
            place++;
            return group(end);
        }
        if (found == '^' || found == '$') {
            place++;
            return linked(new Pattern.Edge(found == '$'), end);
        }
        CodeSet set = set().ignoreCase(ignoresCase);
        int[] count = count();
        char kind = count[2] == 0 ? ' ' : taken('?') ? '?' : taken('+') ? '+' : ' ';
        return linked(new Pattern.Repeat(set, count[0], count[1], kind, effort), end);
    }

    private Node group(Node end) {
        deeper();
        boolean before = ignoresCase;
        if (takenAll("?=") || takenAll("?!")) {
            boolean wanted = source.charAt(place - 1) == '=';
            Node body = choice(new Pattern.Accept());
            close(before);
            return linked(new Pattern.Look(body, wanted), end);
        }
        if (takenAll("?i:")) {
            ignoresCase = true;
        } else if (!takenAll("?:") && place < source.length() && source.charAt(place) == '?') {
            throw unknown();
        }
        Node body = choice(end);
        close(before);
        if (taken('?')) {
            List<Node> ways = new ArrayList<Node>();
            ways.add(body);
            ways.add(end);
            return new Pattern.Choice(ways);
        }
        if (place < source.length() && "*+{".indexOf(source.charAt(place)) >= 0) {
            throw unknown();
        }
        return body;
    }

    private void close(boolean ignored) {
        if (!taken(')')) {
            throw unknown();
        }
        ignoresCase = ignored;
        depth--;
    }

    private void deeper() {
        if (++depth > DEEPEST) {
            throw unknown();
        }
    }

    /** Least, most, and whether there was a sign of repetition. */
    private int[] count() {
        if (taken('?')) {
            return new int[] {0, 1, 1};
        }
        if (taken('*')) {
            return new int[] {0, EVER, 1};
        }
        if (taken('+')) {
            return new int[] {1, EVER, 1};
        }
        int close = source.indexOf('}', place);
        if (place < source.length() && source.charAt(place) == '{' && close > 0) {
            String[] numbers = source.substring(place + 1, close).split(",", -1);
            place = close + 1;
            try {
                int least = numbers[0].isEmpty() ? 0 : Integer.parseInt(numbers[0]);
                if (least < 0 || numbers.length > 2) {
                    throw unknown();
                }
                int most = numbers.length == 1 ? least : numbers[1].isEmpty() ? EVER : Integer.parseInt(numbers[1]);
                return new int[] {least, most, 1};
            } catch (NumberFormatException error) {
                throw unknown();
            }
        }
        return new int[] {1, 1, 0};
    }

    /** A class in brackets, an escape, a dot or a character. */
    private CodeSet set() {
        int found = source.codePointAt(place);
        place += Character.charCount(found);
        if (found == '[') {
            return brackets();
        }
        if (found == '\\') {
            return escape();
        }
        if (found == '.') {
            return CodeSet.of('\n').negate();
        }
        if ("?*+{}".indexOf(found) >= 0) {
            throw unknown();
        }
        return CodeSet.of(found);
    }

    private CodeSet brackets() {
        deeper();
        CodeSet set = new CodeSet();
        boolean negated = taken('^');
        boolean first = true;
        while (first || !taken(']')) {
            if (place >= source.length() || source.startsWith("&&", place)) {
                throw unknown();
            }
            int from = source.codePointAt(place);
            place += Character.charCount(from);
            if (from == '[') {
                set.add(brackets());
            } else {
                addRange(set, from);
            }
            first = false;
        }
        depth--;
        return negated ? set.negate() : set;
    }

    private void addRange(CodeSet set, int from) {
        int start = from;
        if (from == '\\') {
            int single = simpleEscape();
            if (single < 0) {
                set.add(escape());
                return;
            }
            start = single;
        }
        boolean range = place + 1 < source.length() && source.charAt(place) == '-' && source.charAt(place + 1) != ']';
        if (!range) {
            set.add(start, start);
            return;
        }
        place++;
        int end = source.codePointAt(place);
        place += Character.charCount(end);
        end = end == '\\' ? simpleEscape() : end;
        if (end < start) {
            throw unknown();
        }
        set.add(start, end);
    }

    /** What follows a backslash. */
    private CodeSet escape() {
        int single = simpleEscape();
        if (single >= 0) {
            return CodeSet.of(single);
        }
        char kind = source.charAt(place++);
        int digits = Unicode.mask("Nd");
        if (kind == 'p' || kind == 'P') {
            int close = source.indexOf('}', place);
            String name = close > place ? source.substring(place + 1, close) : "";
            boolean negated = kind == 'P' ^ name.startsWith("^");
            int mask = Unicode.mask(name.startsWith("^") ? name.substring(1) : name);
            if (close < 0 || source.charAt(place) != '{' || mask == 0) {
                throw unknown();
            }
            place = close + 1;
            return negated ? CodeSet.categories(mask).negate() : CodeSet.categories(mask);
        }
        CodeSet set = "sS".indexOf(kind) >= 0 ? CodeSet.whiteSpace() : "dD".indexOf(kind) >= 0
            ? CodeSet.categories(digits)
            : CodeSet.categories(Unicode.mask("L") | Unicode.mask("M") | digits | Unicode.mask("Pc"));
        if ("sSdDwW".indexOf(kind) < 0) {
            throw unknown();
        }
        return Character.isUpperCase(kind) ? set.negate() : set;
    }

    /** The character of an escape such as \n or \.; -1 and nothing taken where it is another kind. */
    private int simpleEscape() {
        if (place >= source.length()) {
            throw unknown();
        }
        char kind = source.charAt(place);
        int named = "nrtfv".indexOf(kind);
        if (named >= 0) {
            place++;
            return "\n\r\t\f\u000b".charAt(named);
        }
        if (kind == 'x' || kind == 'u') {
            int count = kind == 'x' ? 2 : 4;
            place += 1 + count;
            try {
                return Integer.parseInt(source.substring(place - count, place), 16);
            } catch (RuntimeException error) {
                throw unknown();
            }
        }
        boolean sign = kind < 128 && !Character.isLetterOrDigit(kind);
        place += sign ? 1 : 0;
        return sign ? kind : -1;
    }

    private boolean taken(char wanted) {
        return takenAll(String.valueOf(wanted));
    }

    private boolean takenAll(String wanted) {
        boolean there = source.startsWith(wanted, place);
        place += there ? wanted.length() : 0;
        return there;
    }

    private static Node linked(Node node, Node end) {
        node.next = end;
        return node;
    }

    private EngineException unknown() {
        return new EngineException("the tokenizer's pattern " + source + " has something at character " + place
            + " that this version does not know");
    }
}
