package org.edgemllm.engine;

import java.io.File;
import java.nio.FloatBuffer;
import java.util.List;

import ai.onnxruntime.OrtException;

import org.edgemllm.bundle.Bundle;
import org.edgemllm.bundle.DecoderSpec;
import org.edgemllm.errors.BundleException;
import org.edgemllm.errors.EngineException;
import org.edgemllm.errors.PromptException;

/**
 * The language model on ONNX Runtime: embeddings in, logits out, keys and values in buffers that stay. The table of token
 * embeddings is mapped from storage.
 */
public final class Decoder {
    /** Prompt tokens computed at once; 4-bit kernels give slightly different logits for different splits. */
    private static final int CHUNK = 512;
    /** The cache grows in steps of this many cells. */
    private static final int CELLS = 256;

    private final DecoderSpec spec;
    private final Graph graph;
    private final NpyFile table;
    private final KvCache cache;
    private final PromptGraph prompt;
    private final Positions track;
    private final Step step;
    private final float[] row;
    private final boolean lastOnly;
    /** Most cells the cache may grow to. */
    public final int contextLength;

    /** Load the decoder of a bundle. */
    public Decoder(Bundle bundle, int threads) {
        spec = bundle.spec.decoder;
        contextLength = spec.contextLength;
        File embeddings = bundle.file("embeddings");
        table = new NpyFile(embeddings);
        if (table.columns != spec.embeddingSize || table.rows < spec.vocabulary) {
            throw new BundleException(bundle.directory, embeddings.getName() + " holds floats [" + table.rows + ", "
                + table.columns + "], not [" + spec.vocabulary + ", " + spec.embeddingSize + "]");
        }
        graph = new Graph(bundle.file("decoder_onnx"), spec, threads);
        boolean opened = false;
        try {
            cache = new KvCache(graph.session, graph.file.getName(), spec.headSize);
            long[] logits = graph.logitsShape();
            if (logits[2] != spec.vocabulary) {
                throw new BundleException(bundle.directory, graph.file.getName()
                    + " gives other logits than bundle.json says");
            }
            lastOnly = !graph.hasKeep && logits[1] == 1;
            step = new Step(graph, spec, cache);
            opened = true;
        } catch (OrtException error) {
            throw new EngineException(graph.file.getName() + " cannot be read", error);
        } finally {
            if (!opened) {
                graph.close();
            }
        }
        prompt = bundle.has("prompt_onnx") ? new PromptGraph(bundle.file("prompt_onnx"), spec, threads, cache) : null;
        track = new Positions(spec.mrope);
        row = new float[spec.embeddingSize];
    }

    /** Cells in the cache. */
    public int cells() {
        return track.count();
    }

    /** Bytes of the keys and values of one cell. */
    public long cellBytes() {
        return cache.cellBytes();
    }

    /** Make room for so many cells in one go; more than the context holds is cut to it. */
    public void reserve(int cells) {
        if (cells <= cache.capacity()) {
            return;
        }
        int rounded = (cells + CELLS - 1) / CELLS * CELLS;
        try {
            cache.grow(Math.min(rounded, contextLength), track.count());
        } catch (OrtException error) {
            throw new EngineException("the cache cannot grow", error);
        }
    }

    /** Load the prompt weights, where a prefill of so many tokens will use them. */
    public void warm(int count) {
        if (prompt != null && prompt.pays(count)) {
            prompt.open();
        }
    }

    /** Append segments; return the logits of the last position. */
    public float[] prefill(List<Segment> segments) {
        Batch batch = batch(segments);
        if (batch.count() == 0) {
            throw new EngineException("nothing to prefill");
        }
        makeRoom(batch.count());
        int done = prompt == null || batch.count() == 1 ? 0 : prompt.run(batch, track);
        float[] last = null;
        while (done < batch.count()) {
            int end = batch.endOfRun(done, batch.count(), CHUNK, graph.hasBlocks);
            int kept = lastOnly || graph.hasKeep ? 1 : end - done;
            FloatBuffer logits = Buffers.floats((long) kept * spec.vocabulary);
            graph.run(batch, done, end, cache, track.count(), logits, kept);
            track.extend(batch.placed.after, done, end);
            if (end == batch.count()) {
                last = new float[spec.vocabulary];
                logits.position((kept - 1) * spec.vocabulary);
                logits.get(last);
            }
            done = end;
        }
        return last;
    }

    /** Append one token and return its logits. */
    public float[] step(int token) {
        makeRoom(1);
        embed(token, row, 0);
        float[] logits = step.run(row, track.next(), track.count());
        track.extend(new int[] {track.next() + 1}, 0, 1);
        return logits;
    }

    /** Forget every cell from a place on. */
    public void truncate(int cells) {
        if (cells < 0 || cells > track.count()) {
            throw new EngineException("cannot cut the cache to " + cells + " cells, it has " + track.count());
        }
        track.truncate(cells);
    }

    public void close() {
        step.close();
        cache.close();
        graph.close();
        if (prompt != null) {
            prompt.close();
        }
    }

    private void makeRoom(int count) {
        int needed = track.count() + count;
        if (needed > contextLength) {
            throw PromptException.overflow(needed, contextLength, 0);
        }
        if (needed > cache.capacity()) {
            reserve(Math.max(needed, cache.capacity() + cache.capacity() / 2));
        }
    }

    private Batch batch(List<Segment> segments) {
        int all = 0;
        for (Segment segment : segments) {
            all += segment.length;
        }
        int width = spec.rowSize();
        float[] rows = new float[Math.multiplyExact(all, width)];
        int at = 0;
        for (Segment segment : segments) {
            if (segment.isText()) {
                for (int id : segment.ids) {
                    embed(id, rows, at);
                    at += width;
                }
            } else {
                int count = segment.length * width;
                System.arraycopy(segment.rows, 0, rows, at, count);
                scale(rows, at, count, spec.scalesPictures);
                at += count;
            }
        }
        return new Batch(rows, track.place(segments), segments);
    }

    private void embed(int id, float[] rows, int at) {
        if (id < 0 || id >= spec.vocabulary) {
            throw new EngineException("token id " + id + " is outside the vocabulary of " + spec.vocabulary);
        }
        table.read(id, rows, at);
        scale(rows, at, spec.embeddingSize, true);
    }

    private void scale(float[] rows, int at, int count, boolean scales) {
        float factor = (float) spec.embeddingScale;
        for (int i = at; scales && factor != 1.0f && i < at + count; i++) {
            rows[i] *= factor;
        }
    }
}
