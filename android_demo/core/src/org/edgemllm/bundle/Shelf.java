package org.edgemllm.bundle;

import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipInputStream;

import org.edgemllm.errors.BundleException;

/**
 * Bundles that a program copies into a folder of its own. One appears whole, with all hashes compared, or not at all;
 * until then the one before it stays.
 */
public final class Shelf {
    private static final int BLOCK = 1 << 16;

    private final File folder;

    public Shelf(File folder) {
        this.folder = folder;
    }

    /** Where a bundle comes from. */
    public interface Source {
        /** Hand over every file. */
        void files(Taker taker) throws IOException;
    }

    /** Takes the files of a bundle. */
    public interface Taker {
        /** Copies a file; {@code path} may have folders before its name, which are left out: bundles are flat. */
        void file(String path, InputStream in) throws IOException;
    }

    /** The place of a bundle, whether there is one or not. */
    public File place(String name) {
        return new File(folder, name);
    }

    /** Copy a bundle to the place of the one before; files of decoders that are not run here are left out. */
    public File put(String name, Source source) {
        final File beside = new File(folder, name + ".tmp");
        remove(beside);
        boolean whole = false;
        try {
            if (!beside.mkdirs()) {
                throw new IOException("no folder can be made beside it");
            }
            source.files(new Taker() {
                @Override
                public void file(String path, InputStream in) throws IOException {
                    take(path.substring(path.lastIndexOf('/') + 1), in, beside);
                }
            });
            Bundle.open(beside, true);
            File target = place(name);
            remove(target);
            if (!beside.renameTo(target)) {
                throw new IOException("it cannot be put in its place");
            }
            whole = true;
            return target;
        } catch (IOException error) {
            throw new BundleException(name, "it cannot be copied (" + BundleException.line(error) + ")");
        } catch (IllegalArgumentException error) {
            throw new BundleException(name, "the .zip is damaged"); // names that are not UTF-8
        } finally {
            if (!whole) {
                remove(beside);
            }
        }
    }

    /** The files of a .zip. */
    public static Source zip(final InputStream zip) {
        return new Source() {
            @Override
            public void files(Taker taker) throws IOException {
                ZipInputStream entries = new ZipInputStream(zip);
                for (ZipEntry entry = entries.getNextEntry(); entry != null; entry = entries.getNextEntry()) {
                    if (!entry.isDirectory()) {
                        taker.file(entry.getName(), entries);
                    }
                }
            }
        };
    }

    /** The files of a folder. */
    public static Source folder(final File from) {
        return new Source() {
            @Override
            public void files(Taker taker) throws IOException {
                File[] files = from.listFiles();
                for (File file : files == null ? new File[0] : files) {
                    if (file.isFile()) {
                        try (InputStream in = new FileInputStream(file)) {
                            taker.file(file.getName(), in);
                        }
                    }
                }
            }
        };
    }

    private static void take(String name, InputStream in, File into) throws IOException {
        boolean plain = !name.isEmpty() && !name.equals(".") && !name.equals("..") && name.indexOf('\\') < 0
            && name.indexOf('\0') < 0;
        if (!plain || name.endsWith(".gguf")) {
            return;
        }
        byte[] block = new byte[BLOCK];
        try (OutputStream out = new FileOutputStream(new File(into, name))) {
            for (int found = in.read(block); found > 0; found = in.read(block)) {
                out.write(block, 0, found);
            }
        }
    }

    private static void remove(File folder) {
        File[] files = folder.listFiles();
        for (File file : files == null ? new File[0] : files) {
            file.delete();
        }
        folder.delete();
    }
}
