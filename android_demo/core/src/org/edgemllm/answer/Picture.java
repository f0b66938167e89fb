package org.edgemllm.answer;

import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.edgemllm.picture.ImageSpec;
import org.edgemllm.picture.Rgb;
import org.edgemllm.picture.TilePlan;
import org.edgemllm.picture.Tiles;
import org.edgemllm.picture.tilers.Tiler;

/** One picture of a conversation with the tiling chosen for it; its pixels go when its embeddings are there. */
public final class Picture {
    public final TilePlan plan;
    /** Tiled more coarsely than the model does by itself. */
    public final boolean reduced;
    private final ImageSpec image;
    private final String digest;
    private final boolean low;
    private Rgb rgb;
    private float[] embeddings;
    private String source = "tower";

    Picture(Rgb rgb, Tiler tiler, ImageSpec image, Budget budget) {
        this.rgb = rgb;
        this.image = image;
        this.plan = tiler.plan(rgb.width, rgb.height);
        boolean own = plan.same(image.tilerFor(1).plan(rgb.width, rgb.height))
            || plan.same(image.tilerFor(2).plan(rgb.width, rgb.height));
        this.reduced = !own;
        this.low = budget.detail.equals("low");
        this.digest = digest(rgb, plan);
    }

    /** Decoded pictures with the tiling that the budget leaves them. */
    static List<Picture> tiled(List<Rgb> decoded, ImageSpec image, int tokensPerTile, Budget budget) {
        List<int[]> sizes = new ArrayList<int[]>();
        for (Rgb rgb : decoded) {
            sizes.add(new int[] {rgb.width, rgb.height});
        }
        List<Tiler> tilers = budget.choose(sizes, image.tilerFor(decoded.size()), tokensPerTile);
        List<Picture> pictures = new ArrayList<Picture>();
        for (int i = 0; i < decoded.size(); i++) {
            pictures.add(new Picture(decoded.get(i), tilers.get(i), image, budget));
        }
        return pictures;
    }

    /** Equal for two pictures exactly when their pixels and what is done to them are. */
    String digest() {
        return digest;
    }

    Tiles tiles() {
        return new Tiles(rgb, plan, image);
    }

    boolean encoded() {
        return embeddings != null;
    }

    float[] embeddings() {
        return embeddings;
    }

    void keep(float[] rows) {
        embeddings = rows;
        rgb = null;
    }

    /** Where the embeddings came from for the last answer: tower, memory, or kv where they were not needed. */
    void from(String where) {
        source = where;
    }

    /** The picture's entry of {@code run --json}. */
    Map<String, Object> usage(int tokensPerTile) {
        Map<String, Object> out = new LinkedHashMap<String, Object>();
        out.put("width", (long) plan.width);
        out.put("height", (long) plan.height);
        out.put("tiles", (long) plan.count());
        out.put("tokens", (long) plan.tokens(tokensPerTile));
        out.put("reduced", reduced);
        out.put("source", source);
        out.put("reduced_by", reduced ? low ? "detail" : "max_image_tokens" : null);
        out.put("tiles_reused", Integer.valueOf(0));
        return out;
    }

    private static String digest(Rgb rgb, TilePlan plan) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            digest.update((rgb.width + "x" + rgb.height + plan.describe()).getBytes("UTF-8"));
            return Arrays.toString(digest.digest(rgb.data));
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        } catch (java.io.UnsupportedEncodingException error) {
            throw new IllegalStateException(error);
        }
    }
}
