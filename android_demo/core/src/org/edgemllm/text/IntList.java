package org.edgemllm.text;

import java.util.Arrays;

/** Token ids that grow. */
public final class IntList {
    private int[] values = new int[16];
    private int count;

    public void add(int value) {
        if (count == values.length) {
            values = Arrays.copyOf(values, count * 2);
        }
        values[count++] = value;
    }

    public int size() {
        return count;
    }

    public int get(int place) {
        return values[place];
    }

    public int[] toArray() {
        return Arrays.copyOf(values, count);
    }
}
