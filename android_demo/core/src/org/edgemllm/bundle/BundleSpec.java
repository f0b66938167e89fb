package org.edgemllm.bundle;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.edgemllm.picture.ImageSpec;
import org.edgemllm.picture.VisionSpec;

/** The whole of bundle.json, as far as a phone needs it. */
public final class BundleSpec {
    public String name;
    public ImageSpec image;
    public VisionSpec vision;
    public PromptSpec prompt;
    public DecoderSpec decoder;
    /** By their names: vision, newline, decoder_onnx, embeddings, tokenizer and so on. */
    public final Map<String, Part> parts = new LinkedHashMap<String, Part>();
    /** What the phone's ONNX Runtime lacks for the decoder, as the export found it. */
    public final List<String> gaps = new ArrayList<String>();
    /** Heads, widths and layers, for estimates of memory; null where the export did not record them. */
    public Map<?, ?> shape;
    /** Whether the weights were drawn and mean nothing. */
    public boolean randomWeights;
}
