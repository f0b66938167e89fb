package org.edgemllm.engine;

import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

import ai.onnxruntime.NodeInfo;
import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.TensorInfo;

import org.edgemllm.errors.EngineException;

/**
 * Key and value buffers of the decoder, [1, heads, capacity, width] each, bound as past and as present at once: the graph
 * appends to them and nothing is copied.
 */
final class KvCache {
    private static final String PAST = "past_key_values.";

    private final List<String> past = new ArrayList<String>();
    private final List<String> present = new ArrayList<String>();
    private final List<int[]> shapes = new ArrayList<int[]>();
    private List<FloatBuffer> buffers = new ArrayList<FloatBuffer>();
    private final List<OnnxTensor> tensors = new ArrayList<OnnxTensor>();
    private int capacity;

    /** The cache of a graph; {@code headSize} takes the place of a width that the graph leaves open. */
    KvCache(OrtSession session, String file, Integer headSize) throws OrtException {
        Map<String, NodeInfo> outputs = session.getOutputInfo();
        for (Map.Entry<String, NodeInfo> entry : session.getInputInfo().entrySet()) {
            if (!entry.getKey().startsWith(PAST)) {
                continue;
            }
            TensorInfo info = Graph.tensor(entry.getValue());
            String name = "present." + entry.getKey().substring(PAST.length());
            long[] shape = info.getShape();
            if (info.type == OnnxJavaType.INT8) {
                throw new EngineException(file + " keeps keys and values in 8 bits, which this ONNX Runtime cannot do; "
                    + "export the model without --kv q8");
            }
            boolean fits = shape.length == 4 && shape[1] > 0 && outputs.containsKey(name)
                && info.type == OnnxJavaType.FLOAT;
            long width = fits && shape[3] > 0 ? shape[3] : headSize == null ? -1 : headSize;
            if (!fits || width < 0) {
                throw new EngineException(file + ": the cache input '" + entry.getKey() + "' " + info
                    + " cannot be bound in place");
            }
            past.add(entry.getKey());
            present.add(name);
            shapes.add(new int[] {(int) shape[1], (int) width});
        }
    }

    int capacity() {
        return capacity;
    }

    /** Whether another graph keeps the same keys and values. */
    boolean suits(KvCache other) {
        boolean same = past.equals(other.past) && shapes.size() == other.shapes.size();
        for (int i = 0; same && i < shapes.size(); i++) {
            same = shapes.get(i)[0] == other.shapes.get(i)[0] && shapes.get(i)[1] == other.shapes.get(i)[1];
        }
        return same;
    }

    /** Bytes of the keys and values of one cell. */
    long cellBytes() {
        long sum = 0;
        for (int[] shape : shapes) {
            sum += 4L * shape[0] * shape[1];
        }
        return sum;
    }

    /** Make room for so many cells and keep the first ones. */
    void grow(int cells, int keep) throws OrtException {
        close();
        List<FloatBuffer> larger = new ArrayList<FloatBuffer>();
        for (int i = 0; i < shapes.size(); i++) {
            int heads = shapes.get(i)[0];
            int width = shapes.get(i)[1];
            FloatBuffer buffer = Buffers.floats((long) heads * cells * width);
            if (!buffers.isEmpty()) {
                copy(buffers.get(i), capacity * width, buffer, cells * width, heads, keep * width);
                buffers.set(i, null);
            }
            larger.add(buffer);
            tensors.add(Buffers.tensor(buffer, 1, heads, cells, width));
        }
        buffers = larger;
        capacity = cells;
    }

    /** Bind every buffer as past and as present. */
    void bind(Map<String, OnnxTensor> inputs, Map<String, OnnxTensor> outputs) {
        for (int i = 0; i < tensors.size(); i++) {
            inputs.put(past.get(i), tensors.get(i));
            outputs.put(present.get(i), tensors.get(i));
        }
    }

    void close() {
        for (OnnxTensor tensor : tensors) {
            tensor.close();
        }
        tensors.clear();
    }

    private static void copy(FloatBuffer from, int fromHead, FloatBuffer to, int toHead, int heads, int count) {
        for (int head = 0; head < heads; head++) {
            FloatBuffer source = from.duplicate();
            source.position(head * fromHead);
            source.limit(head * fromHead + count);
            FloatBuffer target = to.duplicate();
            target.position(head * toHead);
            target.put(source);
        }
    }
}
