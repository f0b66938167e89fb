package org.edgemllm.demo;

import android.content.Context;
import android.content.res.AssetManager;

import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipInputStream;

/** Bundles in the app's own storage: the starter from the app itself, others from a .zip. A bundle appears whole or not. */
final class Bundles {
    private static final String STARTER = "starter.edge";
    private static final String CHOSEN = "chosen.edge";
    private static final String SPEC = "bundle.json";
    private static final int BLOCK = 1 << 16;

    private final Context context;

    Bundles(Context context) {
        this.context = context;
    }

    /** The bundle that comes with the app; its hashes are checked when it is opened. */
    File starter() throws IOException {
        File target = new File(context.getFilesDir(), STARTER);
        AssetManager assets = context.getAssets();
        File spec = new File(target, SPEC);
        if (spec.isFile() && sameText(assets, org.edgemllm.bundle.Bundle.read(spec))) {
            return target;
        }
        File beside = fresh(STARTER);
        for (String name : assets.list(STARTER)) {
            try (InputStream in = assets.open(STARTER + "/" + name)) {
                copy(in, new File(beside, name));
            }
        }
        remove(target); // of an earlier version of the app
        return appear(beside, target);
    }

    /** A bundle from a .zip, in the place of the one before. */
    File unpack(InputStream zip) throws IOException {
        File beside = fresh(CHOSEN);
        try (ZipInputStream entries = new ZipInputStream(zip)) {
            for (ZipEntry entry = entries.getNextEntry(); entry != null; entry = entries.getNextEntry()) {
                // Bundles are flat: a folder round the files is left out, and no name can lead outside.
                String name = entry.getName().substring(entry.getName().lastIndexOf('/') + 1);
                if (!entry.isDirectory() && !name.isEmpty() && !name.equals("..") && name.indexOf('\\') < 0) {
                    copy(entries, new File(beside, name));
                }
            }
        }
        if (!new File(beside, SPEC).isFile()) {
            remove(beside);
            throw new IOException("there is no bundle.json in it");
        }
        File target = new File(context.getFilesDir(), CHOSEN);
        remove(target);
        return appear(beside, target);
    }

    /** Whether bundle.json of the app is the one that was unpacked. */
    private static boolean sameText(AssetManager assets, byte[] unpacked) throws IOException {
        try (InputStream in = assets.open(STARTER + "/" + SPEC)) {
            for (byte each : unpacked) {
                if (in.read() != (each & 255)) {
                    return false;
                }
            }
            return in.read() < 0;
        }
    }

    private File fresh(String name) throws IOException {
        File beside = new File(context.getFilesDir(), name + ".tmp");
        remove(beside);
        if (!beside.mkdirs()) {
            throw new IOException("no folder can be made in the app's storage");
        }
        return beside;
    }

    private static File appear(File beside, File target) throws IOException {
        if (!beside.renameTo(target)) {
            throw new IOException("the bundle cannot be put in its place");
        }
        return target;
    }

    private static void remove(File folder) {
        File[] files = folder.listFiles();
        for (File file : files == null ? new File[0] : files) {
            file.delete();
        }
        folder.delete();
    }

    private static void copy(InputStream in, File file) throws IOException {
        byte[] block = new byte[BLOCK];
        try (OutputStream out = new FileOutputStream(file)) {
            for (int found = in.read(block); found > 0; found = in.read(block)) {
                out.write(block, 0, found);
            }
        }
    }
}
