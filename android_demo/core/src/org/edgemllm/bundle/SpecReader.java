package org.edgemllm.bundle;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

import org.edgemllm.errors.BundleException;
import org.edgemllm.json.FieldException;
import org.edgemllm.json.Fields;
import org.edgemllm.picture.ImageSpec;
import org.edgemllm.picture.PatchInput;
import org.edgemllm.picture.VisionSpec;
import org.edgemllm.picture.tilers.Tiler;

/** bundle.json as a {@link BundleSpec}: strict, an unknown field is an error. */
public final class SpecReader {
    private static final long SCHEMA_VERSION = 1;
    /** Visual tokens of a tile: with the most tiles that a picture may have they fit 31 bits. */
    private static final int MAX_TOKENS = 1 << 20;
    /** Numbers in one row that the tower gives for a token. */
    private static final int MAX_ROW = 1 << 24;

    private SpecReader() {
    }

    /** Read a parsed bundle.json. */
    public static BundleSpec read(Object data, String path) {
        if (!(data instanceof Map)) {
            throw new BundleException(path, "bundle.json is not a JSON object");
        }
        Object version = ((Map<?, ?>) data).get("schema_version");
        if (!Long.valueOf(SCHEMA_VERSION).equals(version)) {
            throw new BundleException(path, "schema_version is " + version + ", this release reads " + SCHEMA_VERSION
                + "; export the model again or update edge-mllm");
        }
        try {
            return spec(Fields.of(data, ""));
        } catch (FieldException error) {
            throw new BundleException(path, "bundle.json, " + error.getMessage());
        }
    }

    private static BundleSpec spec(Fields fields) throws FieldException {
        BundleSpec spec = new BundleSpec();
        for (String unread : new String[] {"schema_version", "source", "verification", "created", "exporter"}) {
            fields.any(unread);
        }
        fields.has("npu"); // towers that this code does not run
        spec.name = fields.text("name");
        Object source = fields.any("source");
        spec.randomWeights = source instanceof Map && Boolean.TRUE.equals(((Map<?, ?>) source).get("random_weights"));
        spec.image = image(fields.object("image"));
        spec.vision = vision(fields.object("vision"));
        spec.decoder = decoder(fields.object("decoder"));
        spec.prompt = PromptReader.read(fields.object("prompt"), spec.decoder.vocabulary);
        spec.shape = shape(fields.any("recipe"));
        addGaps(fields.any("recipe"), spec);
        Fields parts = fields.object("parts");
        for (String name : parts.names()) {
            Fields part = parts.object(name);
            spec.parts.put(name, new Part(part.text("file"), part.text("sha256"), part.big("bytes"),
                part.text("precision")));
            part.end();
        }
        fields.end();
        return spec;
    }

    /** How pictures are cut; also for settings that come without a bundle. */
    public static ImageSpec image(Fields fields) throws FieldException {
        Tiler tiler = TilerReader.read(fields.object("tiler"));
        Tiler several = fields.has("several") ? TilerReader.read(fields.object("several")) : null;
        double rescale = fields.number("rescale");
        double[] mean = fields.numbers("mean", 3);
        double[] std = fields.numbers("std", 3);
        for (double value : new double[] {rescale, std[0], std[1], std[2]}) {
            if (value <= 0) {
                throw new FieldException(fields.path("std"), value + " is not above zero");
            }
        }
        String resample = fields.choice("resample", "nearest", "lanczos", "bilinear", "bicubic", "box", "hamming");
        fields.end();
        return new ImageSpec(tiler, several, resample, rescale, mean, std);
    }

    /** What the tower takes; also for settings that come without a bundle. */
    public static VisionSpec vision(Fields fields) throws FieldException {
        PatchInput patches = null;
        if (fields.has("patches")) {
            Fields found = fields.object("patches");
            int frames = found.has("frames") ? size(found, "frames") : 1;
            patches = new PatchInput(size(found, "patch"), size(found, "merge"), frames, found.wholeOrNull("window"));
            if (found.flag("pooled", false)) {
                throw new FieldException(found.path("pooled"), "towers that pool each tile are not run here");
            }
            if (patches.window != null && (patches.window < 1 || patches.window % patches.merge != 0
                || patches.window > 256)) {
                throw new FieldException(found.path("window"), patches.window + ", a multiple of " + patches.merge
                    + " up to 256 is expected");
            }
            found.end();
        }
        int tokens = size(fields, "tokens_per_tile");
        if (tokens > MAX_TOKENS) {
            throw new FieldException(fields.path("tokens_per_tile"), tokens + " is not a sane size");
        }
        VisionSpec vision = new VisionSpec(tokens, size(fields, "tile_height"),
            size(fields, "tile_width"), patches);
        fields.end();
        return vision;
    }

    private static DecoderSpec decoder(Fields fields) throws FieldException {
        DecoderSpec spec = new DecoderSpec();
        spec.embeddingSize = size(fields, "n_embd");
        spec.vocabulary = size(fields, "n_vocab");
        spec.layers = size(fields, "n_layer");
        spec.contextLength = size(fields, "context_length");
        spec.mrope = fields.choiceOrFirst("positions", "sequential", "mrope").equals("mrope");
        spec.bidirectionalPictures =
            fields.choiceOrFirst("image_attention", "causal", "bidirectional").equals("bidirectional");
        fields.has("mrope_sections"); // known to the graph
        spec.headSize = fields.has("head_dim") ? Integer.valueOf(size(fields, "head_dim")) : null;
        spec.embeddingScale = fields.number("embedding_scale", 1.0);
        spec.scalesPictures = fields.flag("scales_pictures", false);
        spec.deepstackLayers = fields.has("deepstack_layers") ? size(fields, "deepstack_layers") : 0;
        if (spec.deepstackLayers >= spec.layers) {
            throw new FieldException(fields.path("deepstack_layers"), spec.deepstackLayers + " of " + spec.layers
                + " layers");
        }
        if (fields.has("state_layers")) {
            throw new FieldException(fields.path("state_layers"), "states that cannot be cut back are not kept here");
        }
        if (spec.embeddingSize * (1L + spec.deepstackLayers) > MAX_ROW) {
            throw new FieldException(fields.path("deepstack_layers"), spec.deepstackLayers + " is not a sane size");
        }
        fields.end();
        return spec;
    }

    private static void addGaps(Object recipe, BundleSpec spec) {
        Object decoder = recipe instanceof Map ? ((Map<?, ?>) recipe).get("decoder_onnx") : null;
        Object gaps = decoder instanceof Map ? ((Map<?, ?>) decoder).get("phone_gaps") : null;
        for (Object gap : gaps instanceof List ? (List<?>) gaps : new ArrayList<Object>()) {
            spec.gaps.add(String.valueOf(gap));
        }
    }

    private static Map<?, ?> shape(Object recipe) {
        Object vision = recipe instanceof Map ? ((Map<?, ?>) recipe).get("vision") : null;
        Object shape = vision instanceof Map ? ((Map<?, ?>) vision).get("shape") : null;
        return shape instanceof Map ? (Map<?, ?>) shape : null;
    }

    /** A whole number that does not lead to huge allocations. */
    static int size(Fields fields, String name) throws FieldException {
        int value = fields.whole(name);
        if (value <= 0 || value > 1 << 24) {
            throw new FieldException(fields.path(name), value + " is not a sane size");
        }
        return value;
    }
}
