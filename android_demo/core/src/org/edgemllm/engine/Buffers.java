package org.edgemllm.engine;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtException;

import org.edgemllm.errors.MemoryException;

/** Memory outside the Java heap that ONNX Runtime reads and writes where it lies. */
final class Buffers {
    private Buffers() {
    }

    static FloatBuffer floats(long count) {
        return bytes(count, 4).asFloatBuffer();
    }

    static LongBuffer longs(long count) {
        return bytes(count, 8).asLongBuffer();
    }

    private static ByteBuffer bytes(long count, int each) {
        if (count > Integer.MAX_VALUE / each) {
            throw new MemoryException("an array of " + count + " numbers", null);
        }
        try {
            return ByteBuffer.allocateDirect((int) count * each).order(ByteOrder.nativeOrder());
        } catch (OutOfMemoryError error) {
            throw new MemoryException("an array of " + count + " numbers", error);
        }
    }

    static OnnxTensor tensor(FloatBuffer values, long... shape) throws OrtException {
        return OnnxTensor.createTensor(Ort.env(), values, shape);
    }

    static OnnxTensor tensor(LongBuffer values, long... shape) throws OrtException {
        return OnnxTensor.createTensor(Ort.env(), values, shape);
    }
}
