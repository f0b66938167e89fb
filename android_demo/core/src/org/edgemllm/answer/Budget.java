package org.edgemllm.answer;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;

import org.edgemllm.errors.PromptException;
import org.edgemllm.errors.SettingException;
import org.edgemllm.picture.tilers.Tiler;

/** How finely pictures may be tiled, decided from their sizes alone before any pixel is touched. */
public final class Budget {
    /** "low": one tile a picture; "auto": coarser where a limit asks for it; "high": the model's own or an error. */
    public final String detail;
    /** Most visual tokens of all pictures of a request together; null for no limit. */
    public final Integer maxImageTokens;

    public Budget(String detail, Integer maxImageTokens) {
        if (!Arrays.asList("low", "auto", "high").contains(detail)) {
            throw new SettingException("detail is '" + detail + "'; it must be one of low, auto, high");
        }
        if (maxImageTokens != null && maxImageTokens < 1) {
            throw new SettingException("max_image_tokens is " + maxImageTokens + "; it must be at least 1");
        }
        this.detail = detail;
        this.maxImageTokens = maxImageTokens;
    }

    /**
     * A tiler for each picture, so that all together keep the limit. Small pictures are served first, and what they
     * leave goes to the larger ones.
     *
     * @param sizes width and height of each picture
     */
    public List<Tiler> choose(List<int[]> sizes, Tiler own, int tokensPerTile) {
        List<Tiler> chosen = new ArrayList<Tiler>();
        for (int[] size : sizes) {
            chosen.add(detail.equals("low") ? own.lowDetail(size[0], size[1]) : own);
        }
        final int[] counts = counts(sizes, chosen, tokensPerTile);
        if (maxImageTokens == null || sum(counts) <= maxImageTokens) {
            return chosen;
        }
        int left = maxImageTokens;
        if (detail.equals("auto")) {
            for (List<Integer> waiting = smallestFirst(counts); !waiting.isEmpty();) {
                int share = Math.floorDiv(left, waiting.size());
                int index = waiting.remove(0);
                int[] size = sizes.get(index);
                chosen.set(index, own.fitTokens(size[0], size[1], share, tokensPerTile));
                counts[index] = chosen.get(index).plan(size[0], size[1]).tokens(tokensPerTile);
                left -= counts[index];
            }
            if (left >= 0) {
                return chosen;
            }
        }
        throw new PromptException("the pictures need at least " + sum(counts) + " visual tokens with detail '" + detail
            + "', max_image_tokens allows " + maxImageTokens + "; allow more or use --detail low");
    }

    private static List<Integer> smallestFirst(final int[] counts) {
        List<Integer> order = new ArrayList<Integer>();
        for (int i = 0; i < counts.length; i++) {
            order.add(i);
        }
        Collections.sort(order, new Comparator<Integer>() {
            @Override
            public int compare(Integer one, Integer other) {
                return Integer.compare(counts[one], counts[other]);
            }
        });
        return order;
    }

    private static int[] counts(List<int[]> sizes, List<Tiler> tilers, int tokensPerTile) {
        int[] counts = new int[sizes.size()];
        for (int i = 0; i < counts.length; i++) {
            counts[i] = tilers.get(i).plan(sizes.get(i)[0], sizes.get(i)[1]).tokens(tokensPerTile);
        }
        return counts;
    }

    private static long sum(int[] counts) {
        long sum = 0;
        for (int count : counts) {
            sum += count;
        }
        return sum;
    }
}
