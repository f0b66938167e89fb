package org.edgemllm.cli;

import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;

import org.edgemllm.errors.EdgeMllmException;

/** Files that appear whole or not at all. */
final class WholeFile {
    private WholeFile() {
    }

    /** Write parts one behind the other. */
    static void write(String path, byte[]... parts) {
        File beside = new File(path + ".tmp");
        try {
            try (OutputStream out = new FileOutputStream(beside)) {
                for (byte[] part : parts) {
                    out.write(part);
                }
            }
            if (!beside.renameTo(new File(path))) {
                throw new IOException("it cannot be renamed");
            }
        } catch (IOException error) {
            throw new EdgeMllmException("cannot write '" + path + "': " + EdgeMllmException.line(error));
        }
    }
}
