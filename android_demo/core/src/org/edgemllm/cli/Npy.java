package org.edgemllm.cli;

import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.Charset;

import org.edgemllm.errors.EdgeMllmException;

/** Writes arrays as NumPy reads them; a file appears whole or not at all. */
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
        File target = new File(path);
        File beside = new File(path + ".tmp");
        try {
            OutputStream out = new FileOutputStream(beside);
            try {
                out.write(new byte[] {(byte) 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0});
                out.write(header.length() & 255);
                out.write(header.length() >> 8);
                out.write(header.toString().getBytes(Charset.forName("US-ASCII")));
                out.write(data);
            } finally {
                out.close();
            }
            if (!beside.renameTo(target)) {
                throw new IOException("it cannot be renamed");
            }
        } catch (IOException error) {
            throw new EdgeMllmException("cannot write '" + path + "': " + EdgeMllmException.line(error));
        }
    }
}
