package org.edgemllm.engine;

import java.io.File;

import ai.onnxruntime.OrtException;

import org.edgemllm.bundle.DecoderSpec;
import org.edgemllm.errors.BundleException;
import org.edgemllm.errors.EngineException;

/** The graph that computes long runs of a prompt; loaded when the first one comes. It gives no logits. */
final class PromptGraph {
    /** Tokens of a prefill from which it is used, and most that it computes at once. */
    private static final int LEAST = 32;
    private static final int RUN = 256;

    private final File file;
    private final DecoderSpec spec;
    private final int threads;
    private final KvCache cache;
    private Graph graph;

    PromptGraph(File file, DecoderSpec spec, int threads, KvCache cache) {
        this.file = file;
        this.spec = spec;
        this.threads = threads;
        this.cache = cache;
    }

    boolean pays(int count) {
        return count >= LEAST;
    }

    Graph open() {
        if (graph == null) {
            Graph opened = new Graph(file, spec, threads);
            boolean suits = false;
            try {
                suits = cache.suits(new KvCache(opened.session, file.getName(), spec.headSize));
            } catch (OrtException error) {
                throw new EngineException(file.getName() + " cannot be read", error);
            } finally {
                if (!suits) {
                    opened.close();
                }
            }
            if (!suits) {
                throw new BundleException(file, "it does not keep the keys and values of the decoder; export the "
                    + "model again");
            }
            graph = opened;
        }
        return graph;
    }

    /** Append all of a prefill but what its logits need, if that is worth it; return how many tokens. */
    int run(Batch batch, Positions track) {
        boolean whole = spec.bidirectionalPictures;
        int count = batch.count() - 1;
        long last = batch.blocks[batch.count() - 1];
        while (whole && last != Batch.TEXT && count > 0 && batch.blocks[count - 1] == last) {
            count--;
        }
        if (count == 0 || !pays(batch.count())) {
            return 0;
        }
        Graph opened = open();
        for (int start = 0; start < count;) {
            int end = batch.endOfRun(start, count, RUN, whole);
            opened.run(batch, start, end, cache, track.count(), null, 0);
            track.extend(batch.placed.after, start, end);
            start = end;
        }
        return count;
    }

    void close() {
        if (graph != null) {
            graph.close();
            graph = null;
        }
    }
}
