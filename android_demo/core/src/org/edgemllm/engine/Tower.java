package org.edgemllm.engine;

import java.io.File;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OnnxValue;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;

import org.edgemllm.bundle.Bundle;
import org.edgemllm.errors.BundleException;
import org.edgemllm.errors.EngineException;
import org.edgemllm.picture.ImageSpec;
import org.edgemllm.picture.Patches;
import org.edgemllm.picture.Stitching;
import org.edgemllm.picture.TilePlan;
import org.edgemllm.picture.Tiles;
import org.edgemllm.picture.VisionSpec;

/** The vision tower with its projector, loaded on first use: pixels in, visual embeddings out, one tile at a time. */
public final class Tower {
    private static final String PIXELS = "pixels";
    private static final String EMBEDDINGS = "embeddings";

    private final File file;
    private final VisionSpec spec;
    private final ImageSpec image;
    private final int width;
    private final int threads;
    private final float[] newline;
    private OrtSession session;

    /** Hears of tiles that are done. */
    public interface Progress {
        void done(int tiles, int all);
    }

    /** The tower of a bundle. */
    public Tower(Bundle bundle, int threads) {
        this.file = bundle.file("vision");
        this.spec = bundle.spec.vision;
        this.image = bundle.spec.image;
        this.width = bundle.spec.decoder.rowSize();
        this.threads = threads;
        this.newline = bundle.has("newline") ? newline(bundle.file("newline"), width) : null;
    }

    public boolean loaded() {
        return session != null;
    }

    /** Create the session now; does nothing when it is there. */
    public void load() {
        if (session == null) {
            session = Ort.open(file, threads, true);
        }
    }

    /** Free the session; the next {@link #encode} loads it again. */
    public void close() {
        if (session == null) {
            return;
        }
        try {
            session.close();
        } catch (OrtException error) {
            throw new EngineException("the vision tower cannot be closed", error);
        } finally {
            session = null;
        }
    }

    /** Embeddings [visual tokens, n_embd] of one picture as the decoder takes them. */
    public float[] encode(Tiles tiles, TilePlan plan, Progress progress) {
        load();
        float[] rows = spec.patches == null ? encodeTiles(tiles, progress) : encodePatches(tiles, plan);
        for (float value : rows) {
            if (Float.isNaN(value) || Float.isInfinite(value)) {
                throw new EngineException("the tower '" + file.getName()
                    + "' gave values that are not numbers; export it at fp32 or int8");
            }
        }
        return new Stitching(width).join(rows, plan, spec.tokensPerTile, newline);
    }

    private float[] encodeTiles(Tiles tiles, Progress progress) {
        int count = spec.tokensPerTile * width;
        float[] rows = new float[tiles.count() * count];
        FloatBuffer pixels = Buffers.floats(3L * spec.tileHeight * spec.tileWidth);
        for (int tile = 0; tile < tiles.count(); tile++) {
            pixels.clear();
            tiles.put(tile, pixels);
            pixels.flip();
            try (OnnxTensor input = Buffers.tensor(pixels, 1, 3, spec.tileHeight, spec.tileWidth)) {
                run(Collections.singletonMap(PIXELS, input), rows, tile * count, count);
            } catch (OrtException error) {
                throw failed(error);
            }
            if (progress != null) {
                progress.done(tile + 1, tiles.count());
            }
        }
        return rows;
    }

    private float[] encodePatches(Tiles tiles, TilePlan plan) {
        Patches patches = new Patches(spec.patches, plan.tokenGrid);
        int count = patches.count();
        FloatBuffer pixels = Buffers.floats((long) count * spec.patches.values());
        patches.put(tiles.tile(0), image, pixels);
        pixels.flip();
        LongBuffer positions = Buffers.longs(2L * count);
        patches.putPositions(positions);
        positions.flip();
        float[] rows = new float[plan.tokens(spec.tokensPerTile) * width];
        List<OnnxTensor> inputs = new ArrayList<OnnxTensor>();
        try {
            Map<String, OnnxTensor> feeds = new HashMap<String, OnnxTensor>();
            feeds.put(PIXELS, keep(inputs, Buffers.tensor(pixels, count, spec.patches.values())));
            feeds.put("positions", keep(inputs, Buffers.tensor(positions, count, 2)));
            if (spec.patches.window != null) {
                int area = spec.patches.window * spec.patches.window;
                LongBuffer windows = Buffers.longs((long) patches.windows() * area);
                LongBuffer places = Buffers.longs(count);
                patches.putWindows(windows, places);
                windows.flip();
                places.flip();
                feeds.put("windows", keep(inputs, Buffers.tensor(windows, patches.windows(), area)));
                feeds.put("places", keep(inputs, Buffers.tensor(places, count)));
            }
            run(feeds, rows, 0, rows.length);
        } catch (OrtException error) {
            throw failed(error);
        } finally {
            for (OnnxTensor each : inputs) {
                each.close();
            }
        }
        return rows;
    }

    private static OnnxTensor keep(List<OnnxTensor> all, OnnxTensor one) {
        all.add(one);
        return one;
    }

    private void run(Map<String, OnnxTensor> feeds, float[] rows, int at, int count) throws OrtException {
        try (OrtSession.Result result = session.run(feeds, Collections.singleton(EMBEDDINGS))) {
            OnnxValue value = result.get(0);
            FloatBuffer found = value instanceof OnnxTensor ? ((OnnxTensor) value).getFloatBuffer() : null;
            if (found == null || found.remaining() != count) {
                throw new BundleException(file, "the tower gave " + (found == null ? "no floats" : found.remaining()
                    + " numbers") + ", expected " + count + "; tower and decoder do not belong together");
            }
            found.get(rows, at, count);
        }
    }

    private static EngineException failed(OrtException error) {
        return new EngineException("the vision tower failed (" + EngineException.line(error) + ")", error);
    }

    private static float[] newline(File file, int width) {
        NpyFile table = new NpyFile(file);
        if (table.rows != 1 || table.columns != width) {
            throw new BundleException(file, "the newline embedding should be float32 [" + width + "]");
        }
        float[] row = new float[width];
        table.read(0, row, 0);
        return row;
    }
}
