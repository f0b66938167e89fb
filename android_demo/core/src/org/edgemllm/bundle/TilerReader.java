package org.edgemllm.bundle;

import java.util.ArrayList;
import java.util.List;

import org.edgemllm.json.FieldException;
import org.edgemllm.json.Fields;
import org.edgemllm.picture.Stitch;
import org.edgemllm.picture.TilePlan;
import org.edgemllm.picture.tilers.AspectGrid;
import org.edgemllm.picture.tilers.BestFitGrid;
import org.edgemllm.picture.tilers.LongestEdgeGrid;
import org.edgemllm.picture.tilers.NativeResolution;
import org.edgemllm.picture.tilers.PanAndScan;
import org.edgemllm.picture.tilers.SingleTile;
import org.edgemllm.picture.tilers.Tiler;

/** A tiler of bundle.json. All whole numbers of it must be above zero and sane. */
final class TilerReader {
    private static final int MAX_DIMENSION = (1 << 24) - 1;
    /** Longest side of a tile or of what one visual token stands for. */
    private static final int MAX_TILE = 1 << 13;

    private final Fields fields;

    private TilerReader(Fields fields) {
        this.fields = fields;
    }

    static Tiler read(Fields fields) throws FieldException {
        String kind = fields.choice("kind", "longest_edge_grid", "aspect_grid", "native_resolution", "best_fit_grid",
            "single_tile", "pan_and_scan");
        TilerReader reader = new TilerReader(fields);
        Tiler tiler;
        if (kind.equals("longest_edge_grid")) {
            tiler = new LongestEdgeGrid(reader.size("longest_edge", Tiler.MAX_SIDE), reader.tile(),
                fields.flag("split", true));
        } else if (kind.equals("aspect_grid")) {
            int least = fields.has("min_tiles") ? reader.size("min_tiles", TilePlan.MAX_TILES) : 1;
            tiler = new AspectGrid(reader.tile(), least, reader.size("max_tiles", TilePlan.MAX_TILES),
                fields.flag("thumbnail", true));
        } else if (kind.equals("native_resolution")) {
            tiler = new NativeResolution(reader.size("unit", MAX_TILE), reader.size("min_pixels", MAX_DIMENSION),
                reader.size("max_pixels", MAX_DIMENSION));
        } else if (kind.equals("best_fit_grid")) {
            boolean pads = fields.choiceOrFirst("fit", "pad", "stretch").equals("pad");
            tiler = new BestFitGrid(reader.tile(), reader.grids(), fields.number("slack", 0.0), pads,
                reader.stitch());
        } else if (kind.equals("single_tile")) {
            String fit = fields.choiceOrFirst("fit", "stretch", "crop", "pad");
            tiler = new SingleTile(reader.tile(), fit, reader.fill(), reader.stitch());
        } else {
            tiler = new PanAndScan(reader.tile(), reader.size("min_crop", MAX_DIMENSION),
                reader.size("max_crops", TilePlan.MAX_TILES),
                fields.number("min_ratio"));
        }
        fields.end();
        return tiler;
    }

    private int tile() throws FieldException {
        return size("tile", MAX_TILE);
    }

    private int size(String name, int most) throws FieldException {
        int value = fields.whole(name);
        if (value <= 0 || value > most) {
            throw new FieldException(fields.path(name), value + " is not a sane size");
        }
        return value;
    }

    private List<int[]> grids() throws FieldException {
        List<int[]> grids = new ArrayList<int[]>();
        if (fields.list("grids").size() > TilePlan.MAX_TILES) {
            throw new FieldException(fields.path("grids"), "there are more than " + TilePlan.MAX_TILES);
        }
        for (Object each : fields.list("grids")) {
            if (!(each instanceof List) || ((List<?>) each).size() != 2) {
                throw new FieldException(fields.path("grids"), "expected rows and columns");
            }
            int[] grid = new int[2];
            for (int i = 0; i < 2; i++) {
                Object side = ((List<?>) each).get(i);
                if (!(side instanceof Long) || (Long) side < 1 || (Long) side > 1024) {
                    throw new FieldException(fields.path("grids"), "rows and columns must be from 1 to 1024");
                }
                grid[i] = ((Long) side).intValue();
            }
            grids.add(grid);
        }
        return grids;
    }

    private int[] fill() throws FieldException {
        int[] fill = fields.has("fill") ? fields.wholes("fill") : new int[3];
        if (fill.length != 3) {
            throw new FieldException(fields.path("fill"), "expected 3 values, found " + fill.length);
        }
        return fill;
    }

    private Stitch stitch() throws FieldException {
        if (!fields.has("stitch")) {
            return null;
        }
        Fields found = fields.object("stitch");
        Stitch stitch = new Stitch(found.wholeOrNull("max_tiles"), found.flag("plain", false));
        found.end();
        if (stitch.maxTiles != null && (stitch.maxTiles < 1 || stitch.maxTiles > 1024)) {
            throw new FieldException(found.path("max_tiles"), stitch.maxTiles + " is not from 1 to 1024");
        }
        return stitch;
    }
}
