package org.edgemllm.engine;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtException;

/** Memory outside the Java heap that ONNX Runtime reads and writes where it lies. */
final class Buffers {
    private Buffers() {
    }

    static FloatBuffer floats(long count) {
        return bytes(Math.multiplyExact(count, 4L)).asFloatBuffer();
    }

    static LongBuffer longs(long count) {
        return bytes(Math.multiplyExact(count, 8L)).asLongBuffer();
    }

    static ByteBuffer bytes(long count) {
        return ByteBuffer.allocateDirect(Math.toIntExact(count)).order(ByteOrder.nativeOrder());
    }

    static OnnxTensor tensor(FloatBuffer values, long... shape) throws OrtException {
        return OnnxTensor.createTensor(Ort.env(), values, shape);
    }

    static OnnxTensor tensor(LongBuffer values, long... shape) throws OrtException {
        return OnnxTensor.createTensor(Ort.env(), values, shape);
    }
}
