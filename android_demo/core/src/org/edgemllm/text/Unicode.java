package org.edgemllm.text;

import java.util.Arrays;

/** General categories of code points, the same on every machine. */
final class Unicode {
    private static final byte[] CATEGORY = new byte[0x110000];
    private static final int[] SPACES = {
        9, 10, 11, 12, 13, 0x20, 0x85, 0xA0, 0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007,
        0x2008, 0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};

    static {
        String runs = UnicodeTable.RUNS;
        int point = 0;
        int place = 0;
        while (place < runs.length()) {
            char letter = runs.charAt(place++);
            int count = 0;
            while (place < runs.length() && runs.charAt(place) >= '0' && runs.charAt(place) <= '9') {
                count = count * 10 + runs.charAt(place++) - '0';
            }
            Arrays.fill(CATEGORY, point, point + count, (byte) (letter >= 'a' ? letter - 'a' + 26 : letter - 'A'));
            point += count;
        }
    }

    private Unicode() {
    }

    /** The categories of a name such as "L" or "Lu" as bits; 0 where there is no such name. */
    static int mask(String name) {
        int mask = 0;
        for (int i = 0; i < UnicodeTable.NAMES.length; i++) {
            if (UnicodeTable.NAMES[i].equals(name) || UnicodeTable.NAMES[i].substring(0, 1).equals(name)) {
                mask |= 1 << i;
            }
        }
        return mask;
    }

    /** Whether a code point has one of the categories. */
    static boolean is(int point, int mask) {
        return (mask >> CATEGORY[point] & 1) != 0;
    }

    static boolean isSpace(int point) {
        return Arrays.binarySearch(SPACES, point) >= 0;
    }

    /** Text as code points. */
    static int[] points(String text) {
        int[] points = new int[text.codePointCount(0, text.length())];
        int at = 0;
        for (int i = 0; i < points.length; i++) {
            points[i] = text.codePointAt(at);
            at += Character.charCount(points[i]);
        }
        return points;
    }

    /** Whether a text holds half a character, which no token can stand for. */
    static boolean hasLoneSurrogate(String text) {
        for (int point : points(text)) {
            if (point >= Character.MIN_SURROGATE && point <= Character.MAX_SURROGATE) {
                return true;
            }
        }
        return false;
    }
}
