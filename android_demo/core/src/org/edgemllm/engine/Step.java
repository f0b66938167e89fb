package org.edgemllm.engine;

import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtException;

import org.edgemllm.bundle.DecoderSpec;
import org.edgemllm.errors.EngineException;

/** One token at a time: all that stays in place from one step to the next is bound once. */
final class Step {
    private final Graph graph;
    private final KvCache cache;
    private final FloatBuffer row;
    private final LongBuffer positions;
    private final FloatBuffer logits;
    private final List<OnnxTensor> made = new ArrayList<OnnxTensor>();
    private final Map<String, OnnxTensor> inputs = new HashMap<String, OnnxTensor>();
    private final Map<String, OnnxTensor> outputs = new HashMap<String, OnnxTensor>();
    /** Of the cache whose buffers are bound. */
    private int capacity;

    Step(Graph graph, DecoderSpec spec, KvCache cache) throws OrtException {
        this.graph = graph;
        this.cache = cache;
        row = Buffers.floats(spec.rowSize()); // a token has no rows for further layers: zeros
        positions = Buffers.longs(spec.mrope ? 3 : 1);
        logits = Buffers.floats(spec.vocabulary);
        put(inputs, Graph.EMBEDS, Buffers.tensor(row, 1, 1, spec.rowSize()));
        if (graph.positionRank == 3) {
            put(inputs, Graph.POSITIONS, Buffers.tensor(positions, positions.capacity(), 1, 1));
        } else if (graph.positionRank > 0) {
            put(inputs, Graph.POSITIONS, Buffers.tensor(positions, 1, 1));
        }
        if (graph.hasBlocks) {
            put(inputs, Graph.BLOCKS, Buffers.tensor(Graph.number(Batch.TEXT), 1, 1));
        }
        if (graph.hasKeep) {
            put(inputs, Graph.KEEP, Buffers.tensor(Graph.number(1), 1));
        }
        put(outputs, Graph.LOGITS, Buffers.tensor(logits, 1, 1, spec.vocabulary));
    }

    /** Append a token with this embedding and position to a cache of {@code past} cells; return its logits. */
    float[] run(float[] embedding, long position, int past) {
        if (capacity != cache.capacity()) {
            cache.bind(inputs, outputs);
            capacity = cache.capacity();
        }
        row.clear();
        row.put(embedding);
        for (int axis = 0; axis < positions.capacity(); axis++) {
            positions.put(axis, position);
        }
        try (OnnxTensor mask = Buffers.tensor(graph.mask(past + 1), 1, past + 1)) {
            inputs.put(Graph.MASK, mask);
            graph.session.run(inputs, Collections.<String>emptySet(), outputs).close();
        } catch (OrtException error) {
            throw new EngineException(graph.file.getName() + " failed (" + EngineException.line(error) + ")", error);
        }
        float[] found = new float[logits.capacity()];
        logits.clear();
        logits.get(found);
        return found;
    }

    void close() {
        for (OnnxTensor each : made) {
            each.close();
        }
    }

    private void put(Map<String, OnnxTensor> ports, String name, OnnxTensor tensor) {
        made.add(tensor);
        ports.put(name, tensor);
    }
}
