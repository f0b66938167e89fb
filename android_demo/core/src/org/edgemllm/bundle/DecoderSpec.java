package org.edgemllm.bundle;

/** What the runtime must know of the language model. */
public final class DecoderSpec {
    public int embeddingSize;
    public int vocabulary;
    public int layers;
    public int contextLength;
    /** Whether positions have three axes (M-RoPE); else they run on like text. */
    public boolean mrope;
    /** Whether a picture's tokens see each other in both directions. */
    public boolean bidirectionalPictures;
    /** Size of one key or value head, for graphs that leave it open; null where the graph says it. */
    public Integer headSize;
    /** Factor on token embeddings that the graph leaves to the caller. */
    public double embeddingScale;
    /** Whether that factor is on visual embeddings too. */
    public boolean scalesPictures;
    /** So many of the first layers take a further row of every visual token, behind its embedding. */
    public int deepstackLayers;

    /** Width of a visual token's row, with what goes to further layers. */
    public int rowSize() {
        return Math.multiplyExact(embeddingSize, 1 + deepstackLayers);
    }
}
