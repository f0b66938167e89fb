package org.edgemllm.picture.file;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.Charset;
import java.util.zip.CRC32;
import java.util.zip.DataFormatException;
import java.util.zip.Inflater;

import org.edgemllm.picture.Rgb;

/** The chunks of a PNG file (ISO/IEC 15948). Profiles and gamma are passed over. */
final class PngFile {
    private static final byte[] SIGNATURE = {(byte) 137, 'P', 'N', 'G', 13, 10, 26, 10};
    private static final Charset LATIN = Charset.forName("ISO-8859-1");
    private static final int HEADER = 13;

    final int width;
    final int height;
    final int depth;
    final int colour;
    private final boolean interlaced;
    byte[] palette = new byte[0];
    /** The tRNS chunk; null where there is none. */
    byte[] transparency;
    private int orientation;
    private int orientationOfXmp;
    private final ByteArrayOutputStream packed = new ByteArrayOutputStream();

    /** Whether a file begins as a PNG does. */
    static boolean is(byte[] file) {
        for (int i = 0; i < SIGNATURE.length; i++) {
            if (i >= file.length || file[i] != SIGNATURE[i]) {
                return false;
            }
        }
        return true;
    }

    PngFile(byte[] file) throws IOException {
        byte[] header = null;
        int place = SIGNATURE.length;
        boolean ended = false;
        while (!ended) {
            if (place + 12 > file.length) {
                throw new IOException("the file is cut off");
            }
            long length = number(file, place);
            if (length < 0 || place + 12 + length > file.length) {
                throw new IOException("the file is cut off");
            }
            String type = new String(file, place + 4, 4, LATIN);
            checkSum(file, place + 4, (int) length + 4);
            byte[] data = java.util.Arrays.copyOfRange(file, place + 8, place + 8 + (int) length);
            header = type.equals("IHDR") ? data : header;
            read(type, data);
            ended = type.equals("IEND");
            place += 12 + (int) length;
        }
        if (header == null || header.length < HEADER) {
            throw new IOException("there is no header");
        }
        width = number(header, 0);
        height = number(header, 4);
        depth = header[8];
        colour = header[9];
        if (header[10] != 0 || header[11] != 0) {
            throw new IOException("unknown filter category");
        }
        interlaced = header[12] != 0;
    }

    /** The orientation that EXIF or else XMP data name, 1 to 8; 0 where there is none. */
    int orientation() {
        return orientation != 0 ? orientation : orientationOfXmp;
    }

    Rgb rgb() throws IOException {
        PngColours colours = new PngColours(this);
        PngLines lines = new PngLines(width, height, colours.bits(), interlaced);
        byte[] raw = inflated(lines.bytes());
        return colours.rgb(lines.unfiltered(raw));
    }

    private void read(String type, byte[] data) throws IOException {
        if (type.equals("PLTE")) {
            palette = data;
        } else if (type.equals("tRNS")) {
            transparency = data;
        } else if (type.equals("IDAT")) {
            packed.write(data);
        } else if (type.equals("eXIf")) {
            orientation = Orientation.ofExif(data, 0);
        } else if (type.equals("iTXt")) {
            String text = new String(data, LATIN);
            orientationOfXmp = text.startsWith("XML:com.adobe.xmp") ? Orientation.ofXmp(text) : orientationOfXmp;
        }
    }

    private byte[] inflated(int size) throws IOException {
        byte[] raw = new byte[size];
        Inflater inflater = new Inflater();
        try {
            inflater.setInput(packed.toByteArray());
            int done = 0;
            while (done < size) {
                int found = inflater.inflate(raw, done, size - done);
                if (found == 0) {
                    throw new IOException("the picture's data are cut off");
                }
                done += found;
            }
        } catch (DataFormatException error) {
            throw new IOException("the picture's data are damaged");
        } finally {
            inflater.end();
        }
        return raw;
    }

    private static void checkSum(byte[] file, int place, int length) throws IOException {
        CRC32 sum = new CRC32();
        sum.update(file, place, length);
        if ((int) sum.getValue() != number(file, place + length)) {
            throw new IOException("a checksum is wrong");
        }
    }

    private static int number(byte[] data, int place) {
        return (data[place] & 255) << 24 | (data[place + 1] & 255) << 16 | (data[place + 2] & 255) << 8
            | data[place + 3] & 255;
    }
}
