package org.edgemllm.engine;

import java.io.File;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import ai.onnxruntime.NodeInfo;
import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.TensorInfo;

import org.edgemllm.bundle.DecoderSpec;
import org.edgemllm.errors.BundleException;
import org.edgemllm.errors.EngineException;

/** A graph that takes embeddings and appends to a cache of keys and values. */
final class Graph {
    static final String EMBEDS = "inputs_embeds";
    static final String MASK = "attention_mask";
    static final String POSITIONS = "position_ids";
    static final String KEEP = "num_logits_to_keep";
    static final String BLOCKS = "blocks";
    static final String LOGITS = "logits";

    final OrtSession session;
    final File file;
    final boolean hasBlocks;
    final boolean hasKeep;
    private final int width;
    /** Axes of the positions that it takes; 0 where it takes none. */
    final int positionRank;
    private LongBuffer ones = Buffers.longs(0);

    Graph(File file, DecoderSpec spec, int threads) {
        this.file = file;
        this.width = spec.rowSize();
        this.session = Ort.open(file, threads, false);
        boolean opened = false;
        try {
            Map<String, NodeInfo> inputs = session.getInputInfo();
            for (String name : inputs.keySet()) {
                boolean known = name.equals(EMBEDS) || name.equals(MASK) || name.equals(POSITIONS)
                    || name.equals(KEEP) || name.equals(BLOCKS) || name.startsWith("past_key_values.");
                if (!known || !inputs.containsKey(EMBEDS) || !inputs.containsKey(MASK)) {
                    throw new EngineException(file.getName() + ": not a decoder that takes embeddings (inputs: "
                        + inputs.keySet() + ")");
                }
            }
            hasBlocks = inputs.containsKey(BLOCKS);
            hasKeep = inputs.containsKey(KEEP);
            if (hasBlocks != spec.bidirectionalPictures) {
                throw new BundleException(file, "bundle.json says that pictures attend otherwise; export it again");
            }
            TensorInfo embeds = tensor(inputs.get(EMBEDS));
            long[] shape = embeds.getShape();
            if (embeds.type != OnnxJavaType.FLOAT || shape.length != 3 || shape[2] != width) {
                throw new BundleException(file, "it takes " + embeds + ", bundle.json says otherwise");
            }
            positionRank = inputs.containsKey(POSITIONS) ? tensor(inputs.get(POSITIONS)).getShape().length : 0;
            opened = true;
        } catch (OrtException error) {
            throw new EngineException(file.getName() + " cannot be read", error);
        } finally {
            if (!opened) {
                close();
            }
        }
    }

    /** The three axes of the logits as the graph has them; three zeros where it has other ones. */
    long[] logitsShape() throws OrtException {
        NodeInfo node = session.getOutputInfo().get(LOGITS);
        long[] shape = node == null ? new long[0] : tensor(node).getShape();
        return shape.length == 3 ? shape : new long[3];
    }

    /** What an input or output takes, which must be an array. */
    static TensorInfo tensor(NodeInfo node) {
        if (!(node.getInfo() instanceof TensorInfo)) {
            throw new EngineException("the graph's '" + node.getName() + "' is no array but " + node.getInfo());
        }
        return (TensorInfo) node.getInfo();
    }

    /**
     * Append part of a batch to a cache that holds {@code past} cells.
     *
     * @param logits room for the logits of the last positions, null where none are wanted
     * @param kept how many positions that is
     */
    void run(Batch batch, int start, int end, KvCache cache, int past, FloatBuffer logits, int kept) {
        int count = end - start;
        FloatBuffer rows = Buffers.floats((long) count * width);
        rows.put(batch.rows, start * width, count * width).flip();
        List<OnnxTensor> made = new ArrayList<OnnxTensor>();
        Map<String, OnnxTensor> inputs = new HashMap<String, OnnxTensor>();
        Map<String, OnnxTensor> outputs = new HashMap<String, OnnxTensor>();
        try {
            cache.bind(inputs, outputs);
            put(inputs, made, EMBEDS, Buffers.tensor(rows, 1, count, width));
            put(inputs, made, MASK, Buffers.tensor(mask(past + count), 1, past + count));
            if (positionRank > 0) {
                put(inputs, made, POSITIONS, positions(batch.placed, start, end));
            }
            if (hasBlocks) {
                LongBuffer blocks = Buffers.longs(count);
                blocks.put(batch.blocks, start, count).flip();
                put(inputs, made, BLOCKS, Buffers.tensor(blocks, 1, count));
            }
            if (logits != null && hasKeep) {
                put(inputs, made, KEEP, Buffers.tensor(number(kept), 1));
            }
            if (logits != null) {
                OnnxTensor out = Buffers.tensor(logits, 1, kept, logits.remaining() / kept);
                made.add(out);
                outputs.put(LOGITS, out);
            }
            session.run(inputs, Collections.<String>emptySet(), outputs).close();
        } catch (OrtException error) {
            throw new EngineException(file.getName() + " failed (" + EngineException.line(error) + ")", error);
        } finally {
            for (OnnxTensor each : made) {
                each.close();
            }
        }
    }

    void close() {
        try {
            session.close();
        } catch (OrtException error) {
            throw new EngineException(file.getName() + " cannot be closed", error);
        }
    }

    private static void put(Map<String, OnnxTensor> inputs, List<OnnxTensor> made, String name, OnnxTensor tensor) {
        made.add(tensor);
        inputs.put(name, tensor);
    }

    private OnnxTensor positions(Positions.Placed placed, int start, int end) throws OrtException {
        int count = end - start;
        int axes = placed.positions.length;
        LongBuffer values = Buffers.longs((long) axes * count);
        for (long[] axis : placed.positions) {
            values.put(axis, start, count);
        }
        values.flip();
        return positionRank == 3 ? Buffers.tensor(values, axes, 1, count) : Buffers.tensor(values, 1, count);
    }

    /** So many ones; the memory is kept and grows. */
    LongBuffer mask(int count) {
        if (ones.capacity() < count) {
            ones = Buffers.longs(Math.max(count, 2L * ones.capacity()));
            while (ones.hasRemaining()) {
                ones.put(1);
            }
        }
        LongBuffer part = ones.duplicate();
        part.position(0);
        part.limit(count);
        return part.slice();
    }

    static LongBuffer number(long value) {
        LongBuffer one = Buffers.longs(1);
        one.put(0, value);
        return one;
    }
}
