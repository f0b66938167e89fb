package org.edgemllm.text;

/** A table from pairs of token ids to their place in the list of merges and the token they become. */
final class LongMap {
    private long[] keys;
    private long[] values;
    private int mask;
    private int count;

    LongMap(int expected) {
        allocate(Integer.highestOneBit(Math.max(expected, 8)) * 4);
    }

    static long pair(int left, int right) {
        return (long) left << 32 | right;
    }

    void put(long key, long value) {
        if (count * 2 >= keys.length) {
            grow();
        }
        int at = find(key);
        if (keys[at] == 0) {
            count++;
        }
        keys[at] = key + 1;
        values[at] = value;
    }

    /** The value of a key, -1 where there is none. */
    long get(long key) {
        int at = find(key);
        return keys[at] == 0 ? -1 : values[at];
    }

    private int find(long key) {
        long mixed = (key + 1) * 0x9E3779B97F4A7C15L;
        int at = (int) (mixed >>> 32) & mask;
        while (keys[at] != 0 && keys[at] != key + 1) {
            at = at + 1 & mask;
        }
        return at;
    }

    private void grow() {
        long[] oldKeys = keys;
        long[] oldValues = values;
        allocate(oldKeys.length * 2);
        for (int i = 0; i < oldKeys.length; i++) {
            if (oldKeys[i] != 0) {
                int at = find(oldKeys[i] - 1);
                keys[at] = oldKeys[i];
                values[at] = oldValues[i];
            }
        }
    }

    private void allocate(int size) {
        keys = new long[size];
        values = new long[size];
        mask = size - 1;
    }
}
