package org.edgemllm.cli;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.Charset;

/** Writes arrays as NumPy reads them. */
final class Npy {
    private Npy() {
    }

    static void write(String path, float[] values, String shape) {
        ByteBuffer bytes = ByteBuffer.allocate(values.length * 4).order(ByteOrder.LITTLE_ENDIAN);
        for (float value : values) {
            bytes.putFloat(value);
        }
        write(path, "<f4", shape, bytes.array());
    }

    static void write(String path, int[] values) {
        ByteBuffer bytes = ByteBuffer.allocate(values.length * 8).order(ByteOrder.LITTLE_ENDIAN);
        for (int value : values) {
            bytes.putLong(value);
        }
        write(path, "<i8", "(" + values.length + ",)", bytes.array());
    }

    private static void write(String path, String type, String shape, byte[] data) {
        StringBuilder header = new StringBuilder();
        header.append("{'descr': '").append(type).append("', 'fortran_order': False, 'shape': ").append(shape);
        header.append(", }");
        while ((10 + header.length() + 1) % 64 != 0) {
            header.append(' ');
        }
        header.append('\n');
        byte[] begin = {
            (byte) 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (byte) header.length(), (byte) (header.length() >> 8)};
        WholeFile.write(path, begin, header.toString().getBytes(Charset.forName("US-ASCII")), data);
    }
}
