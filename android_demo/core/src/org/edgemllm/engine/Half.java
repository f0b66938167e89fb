package org.edgemllm.engine;

/** Numbers of 16 bits (IEEE 754 binary16) as floats; every one has an exact float. */
final class Half {
    private static final int EXPONENT = 0x1F;
    private static final int FRACTION = 0x3FF;

    private Half() {
    }

    static float toFloat(short half) {
        int sign = (half & 0x8000) << 16;
        int exponent = half >> 10 & EXPONENT;
        int fraction = half & FRACTION;
        if (exponent == 0) {
            float small = fraction * (1.0f / (1 << 24));
            return sign == 0 ? small : -small;
        }
        int wide = exponent == EXPONENT ? 0xFF : exponent - 15 + 127;
        return Float.intBitsToFloat(sign | wide << 23 | fraction << 13);
    }
}
