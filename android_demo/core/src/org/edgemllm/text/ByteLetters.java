package org.edgemllm.text;

import java.nio.charset.Charset;

/** The letters that byte-level tokenizers write bytes with (GPT-2's bytes_to_unicode). */
final class ByteLetters {
    static final Charset UTF_8 = Charset.forName("UTF-8");
    private static final char[] LETTER = new char[256];
    private static final int[] BYTE = new int[512];

    static {
        java.util.Arrays.fill(BYTE, -1);
        int further = 256;
        for (int value = 0; value < 256; value++) {
            boolean printed = value >= '!' && value <= '~' || value >= 0xA1 && value <= 0xAC || value >= 0xAE;
            LETTER[value] = (char) (printed ? value : further++);
            BYTE[LETTER[value]] = value;
        }
    }

    private ByteLetters() {
    }

    /** A text as the letters of its UTF-8 bytes. */
    static String written(String text) {
        byte[] bytes = text.getBytes(UTF_8);
        char[] letters = new char[bytes.length];
        for (int i = 0; i < bytes.length; i++) {
            letters[i] = LETTER[bytes[i] & 255];
        }
        return new String(letters);
    }

    /** The byte of a letter, -1 where it is none. */
    static int byteOf(char letter) {
        return letter < BYTE.length ? BYTE[letter] : -1;
    }
}
