package org.edgemllm.answer;

import java.math.BigInteger;
import java.util.ArrayList;
import java.util.List;

/**
 * The random numbers of NumPy's default_rng(seed), so that a seed draws the same tokens here and there: SeedSequence and
 * PCG64 (XSL-RR) of O'Neill, 2014.
 */
final class Pcg64 {
    private static final int POOL = 4;
    private static final BigInteger MULTIPLIER = new BigInteger("2360ED051FC65DA44385DF649FCCF645", 16);
    private static final BigInteger MASK = BigInteger.ONE.shiftLeft(128).subtract(BigInteger.ONE);

    private final BigInteger increment;
    private BigInteger state;

    Pcg64(long seed) {
        long[] words = stateWords(pool(seed));
        BigInteger start = wide(words[0], words[1]);
        increment = wide(words[2], words[3]).shiftLeft(1).or(BigInteger.ONE).and(MASK);
        state = BigInteger.ZERO;
        step();
        state = state.add(start).and(MASK);
        step();
    }

    /** A number from 0 up to 1. */
    double next() {
        step();
        long high = state.shiftRight(64).longValue();
        long value = Long.rotateRight(high ^ state.longValue(), (int) (high >>> 58));
        return (value >>> 11) * (1.0 / 9007199254740992.0);
    }

    private void step() {
        state = state.multiply(MULTIPLIER).add(increment).and(MASK);
    }

    private static BigInteger wide(long high, long low) {
        return unsigned(high).shiftLeft(64).or(unsigned(low));
    }

    private static BigInteger unsigned(long value) {
        return BigInteger.valueOf(value).and(BigInteger.ONE.shiftLeft(64).subtract(BigInteger.ONE));
    }

    /** SeedSequence.mix_entropy of a number that is not negative. */
    private static int[] pool(long seed) {
        List<Integer> entropy = new ArrayList<Integer>();
        entropy.add((int) seed);
        if (seed >>> 32 != 0) {
            entropy.add((int) (seed >>> 32));
        }
        Hash hash = new Hash(0x43b0d7e5, 0x931e8875);
        int[] pool = new int[POOL];
        for (int i = 0; i < POOL; i++) {
            pool[i] = hash.of(i < entropy.size() ? entropy.get(i) : 0);
        }
        for (int from = 0; from < POOL; from++) {
            for (int to = 0; to < POOL; to++) {
                if (from != to) {
                    pool[to] = mixed(pool[to], hash.of(pool[from]));
                }
            }
        }
        return pool;
    }

    private static long[] stateWords(int[] pool) {
        Hash hash = new Hash(0x8b51f9dd, 0x58f38ded);
        long[] words = new long[4];
        for (int i = 0; i < 8; i++) {
            words[i / 2] |= (hash.of(pool[i % POOL]) & 0xFFFFFFFFL) << 32 * (i % 2);
        }
        return words;
    }

    private static int mixed(int one, int other) {
        int result = 0xca01f9dd * one - 0x4973f715 * other;
        return result ^ result >>> 16;
    }

    /** SeedSequence's hash, whose constant changes with every value. */
    private static final class Hash {
        private int constant;
        private final int factor;

        Hash(int constant, int factor) {
            this.constant = constant;
            this.factor = factor;
        }

        int of(int value) {
            value ^= constant;
            constant *= factor;
            value *= constant;
            return value ^ value >>> 16;
        }
    }
}
