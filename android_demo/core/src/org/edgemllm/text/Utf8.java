package org.edgemllm.text;

import java.io.ByteArrayOutputStream;

/** Bytes as text the way Rust's from_utf8_lossy reads them: each part that cannot go on becomes one U+FFFD. */
final class Utf8 {
    private static final String REPLACEMENT = "\uFFFD";

    private Utf8() {
    }

    static String lossy(byte[] bytes) {
        StringBuilder out = new StringBuilder();
        int at = 0;
        while (at < bytes.length) {
            int length = good(bytes, at);
            if (length > 0) {
                out.append(new String(bytes, at, length, ByteLetters.UTF_8));
                at += length;
            } else {
                out.append(REPLACEMENT);
                at -= length;
            }
        }
        return out.toString();
    }

    static String lossy(ByteArrayOutputStream bytes) {
        return lossy(bytes.toByteArray());
    }

    /** Whether bytes are whole characters. */
    static boolean isWhole(byte[] bytes) {
        int at = 0;
        while (at < bytes.length) {
            int length = good(bytes, at);
            if (length <= 0) {
                return false;
            }
            at += length;
        }
        return true;
    }

    /** Bytes of the character at a place; where there is none, minus the bytes that its beginning has. */
    private static int good(byte[] bytes, int at) {
        int first = bytes[at] & 255;
        if (first < 0x80) {
            return 1;
        }
        int length = first >= 0xC2 && first <= 0xDF ? 2 : first >= 0xE0 && first <= 0xEF ? 3
            : first >= 0xF0 && first <= 0xF4 ? 4 : 0;
        if (length == 0) {
            return -1;
        }
        for (int i = 1; i < length; i++) {
            int found = at + i < bytes.length ? bytes[at + i] & 255 : 0;
            int low = i > 1 ? 0x80 : first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
            int high = i > 1 ? 0xBF : first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
            if (found < low || found > high) {
                return -i;
            }
        }
        return length;
    }
}
