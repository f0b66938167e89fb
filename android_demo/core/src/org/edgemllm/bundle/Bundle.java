package org.edgemllm.bundle;

import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.Charset;
import java.nio.charset.CodingErrorAction;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Locale;
import java.util.Map;

import org.edgemllm.errors.BundleException;
import org.edgemllm.json.Json;

/** A bundle directory: opened and checked, nothing in it executed. */
public final class Bundle {
    private static final String SPEC_FILE = "bundle.json";
    private static final int MAX_SPEC_BYTES = 8 << 20;
    private static final int BLOCK = 1 << 20;
    private static final Charset UTF_8 = Charset.forName("UTF-8");
    private static final String[] NEEDED = {"vision", "tokenizer", "decoder_onnx", "embeddings"};

    public final File directory;
    public final BundleSpec spec;

    private Bundle(File directory, BundleSpec spec) {
        this.directory = directory;
        this.spec = spec;
    }

    /**
     * Open a bundle and check its files' sizes and, with {@code checkHashes}, their SHA-256. Files of decoders that are
     * not used here are passed over.
     */
    public static Bundle open(File directory, boolean checkHashes) {
        File file = new File(directory, SPEC_FILE);
        if (!file.isFile()) {
            throw new BundleException(directory, "there is no " + SPEC_FILE);
        }
        if (file.length() > MAX_SPEC_BYTES) {
            throw new BundleException(directory, SPEC_FILE + " is larger than " + (MAX_SPEC_BYTES >> 20) + " MiB");
        }
        Bundle bundle;
        try {
            Object data = Json.parse(text(read(file)));
            bundle = new Bundle(directory, SpecReader.read(data, directory.getPath()));
        } catch (Json.JsonException error) {
            throw new BundleException(directory, SPEC_FILE + " is not valid JSON (" + error.getMessage() + ")");
        } catch (IOException error) {
            throw new BundleException(directory, SPEC_FILE + " cannot be read (" + error.getMessage() + ")");
        }
        bundle.checkParts(checkHashes);
        TileChecks.check(directory.getPath(), bundle.spec);
        return bundle;
    }

    /** The file of a part. */
    public File file(String part) {
        Part found = spec.parts.get(part);
        if (found == null) {
            throw new BundleException(directory, "it has no part '" + part + "'");
        }
        return inside(part, found);
    }

    public boolean has(String part) {
        return spec.parts.containsKey(part);
    }

    /** The text of a part. */
    public String text(String part) {
        try {
            return text(read(file(part)));
        } catch (IOException error) {
            throw new BundleException(directory, "the file '" + spec.parts.get(part).file + "' cannot be read ("
                + BundleException.line(error) + ")");
        }
    }

    private void checkParts(boolean checkHashes) {
        for (String name : NEEDED) {
            if (!has(name)) {
                throw new BundleException(directory, name.equals("decoder_onnx")
                    ? "it has no ONNX decoder, which the phone runs; export the model with --format onnx"
                    : "bundle.json names no " + name + "; export the model again");
            }
        }
        if (!spec.gaps.isEmpty()) {
            throw new BundleException(directory,
                "its decoder does not run on a phone: ONNX Runtime lacks " + spec.gaps + " there");
        }
        for (Map.Entry<String, Part> entry : spec.parts.entrySet()) {
            Part part = entry.getValue();
            File file = inside(entry.getKey(), part);
            if (entry.getKey().equals("decoder_gguf") || entry.getKey().equals("mmproj")) {
                continue;
            }
            if (!file.isFile()) {
                throw new BundleException(directory, "the file '" + part.file + "' is missing; copy the bundle again");
            }
            if (file.length() != part.bytes) {
                throw changed(part, file.length() + " bytes instead of " + part.bytes);
            }
            if (checkHashes && !sha256(file).equals(part.sha256.toLowerCase(Locale.ROOT))) {
                throw changed(part, "its SHA-256 is another one");
            }
        }
    }

    private BundleException changed(Part part, String what) {
        return new BundleException(directory,
            "the file '" + part.file + "' has changed (" + what + "); copy the bundle again");
    }

    /** The part's path, which must lie in the bundle after every symbolic link has been followed. */
    private File inside(String name, Part part) {
        File file = new File(directory, part.file);
        try {
            String root = directory.getCanonicalPath() + File.separator;
            boolean plain = !part.file.isEmpty() && part.file.indexOf('\\') < 0 && part.file.indexOf('\0') < 0
                && !new File(part.file).isAbsolute();
            if (plain && file.getCanonicalPath().startsWith(root)) {
                return file;
            }
        } catch (IOException error) {
            throw new BundleException(directory, "the path of part '" + name + "' cannot be followed");
        }
        throw new BundleException(directory, "the path of part '" + name + "' leaves the bundle: '" + part.file + "'");
    }

    private String sha256(File file) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            InputStream stream = new FileInputStream(file);
            try {
                byte[] block = new byte[BLOCK];
                for (int found = stream.read(block); found > 0; found = stream.read(block)) {
                    digest.update(block, 0, found);
                }
            } finally {
                stream.close();
            }
            StringBuilder text = new StringBuilder();
            for (byte each : digest.digest()) {
                text.append(Character.forDigit(each >> 4 & 15, 16)).append(Character.forDigit(each & 15, 16));
            }
            return text.toString();
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        } catch (IOException error) {
            throw new BundleException(directory, "the file '" + file.getName() + "' cannot be read ("
                + BundleException.line(error) + ")");
        }
    }

    /** All bytes of a file. */
    public static byte[] read(File file) throws IOException {
        if (file.length() > Integer.MAX_VALUE - 8) {
            throw new IOException("it is too large");
        }
        byte[] bytes = new byte[(int) file.length()];
        InputStream stream = new FileInputStream(file);
        try {
            int done = 0;
            while (done < bytes.length) {
                int found = stream.read(bytes, done, bytes.length - done);
                if (found < 0) {
                    throw new IOException("it became shorter while it was read");
                }
                done += found;
            }
        } finally {
            stream.close();
        }
        return bytes;
    }

    private static String text(byte[] bytes) throws CharacterCodingException {
        return UTF_8.newDecoder().onMalformedInput(CodingErrorAction.REPORT)
            .onUnmappableCharacter(CodingErrorAction.REPORT).decode(ByteBuffer.wrap(bytes)).toString();
    }
}
