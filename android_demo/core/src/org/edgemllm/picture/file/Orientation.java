package org.edgemllm.picture.file;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

import org.edgemllm.picture.Rgb;

/** The EXIF orientation of a picture (CIPA DC-008), and turning by it. What is broken counts as none. */
public final class Orientation {
    private static final Pattern XMP = Pattern.compile("tiff:Orientation(=\"|>)([0-9])");
    private static final int TAG = 0x0112;
    private static final int SHORT = 3;

    private Orientation() {
    }

    /** Orientation in the EXIF data of a JPEG file; 0 where there is none. */
    static int ofJpeg(byte[] file) {
        int place = 2;
        boolean jpeg = file.length > 4 && (file[0] & 255) == 0xFF && (file[1] & 255) == 0xD8;
        while (jpeg && place + 4 <= file.length && (file[place] & 255) == 0xFF) {
            int marker = file[place + 1] & 255;
            int length = (file[place + 2] & 255) << 8 | file[place + 3] & 255;
            if (marker == 0xDA || length < 2 || place + 2 + length > file.length) {
                return 0;
            }
            if (marker == 0xE1 && length > 8 && file[place + 4] == 'E' && file[place + 5] == 'x') {
                return ofExif(java.util.Arrays.copyOfRange(file, place + 10, place + 2 + length), 0);
            }
            place += 2 + length;
        }
        return 0;
    }

    /** Orientation in EXIF data, which are a small TIFF file; 0 where there is none. */
    static int ofExif(byte[] data, int start) {
        try {
            boolean little = data[start] == 'I';
            int entries = start + number(data, start + 4, 4, little);
            int count = number(data, entries, 2, little);
            for (int i = 0; i < count; i++) {
                int entry = entries + 2 + 12 * i;
                if (number(data, entry, 2, little) == TAG && number(data, entry + 2, 2, little) == SHORT) {
                    return number(data, entry + 8, 2, little);
                }
            }
            return 0;
        } catch (IndexOutOfBoundsException error) {
            return 0;
        }
    }

    static int ofXmp(String text) {
        Matcher found = XMP.matcher(text);
        return found.find() ? Integer.parseInt(found.group(2)) : 0;
    }

    /** The picture turned or mirrored so that it stands upright. */
    public static Rgb upright(Rgb picture, int orientation) {
        if (orientation < 2 || orientation > 8) {
            return picture;
        }
        boolean swaps = orientation >= 5;
        int width = swaps ? picture.height : picture.width;
        int height = swaps ? picture.width : picture.height;
        // Which of the old sides run backwards along the new ones.
        boolean left = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
        boolean up = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
        Rgb out = new Rgb(width, height);
        int place = 0;
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++) {
                int column = swaps ? y : x;
                int row = swaps ? x : y;
                column = left ? picture.width - 1 - column : column;
                row = up ? picture.height - 1 - row : row;
                System.arraycopy(picture.data, (row * picture.width + column) * 3, out.data, place, 3);
                place += 3;
            }
        }
        return out;
    }

    private static int number(byte[] data, int place, int bytes, boolean little) {
        int value = 0;
        for (int i = 0; i < bytes; i++) {
            value = value << 8 | data[place + (little ? bytes - 1 - i : i)] & 255;
        }
        return value;
    }
}
