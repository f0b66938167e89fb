package org.edgemllm.prompt;

import org.edgemllm.bundle.PromptSpec;
import org.edgemllm.bundle.TileLayout;
import org.edgemllm.picture.TilePlan;

/** One picture as text: its tiles' visual tokens between the layout's marks. */
final class PictureText {
    private final PromptSpec spec;
    private final int tokensPerTile;

    PictureText(PromptSpec spec, int tokensPerTile) {
        this.spec = spec;
        this.tokensPerTile = tokensPerTile;
    }

    String of(TilePlan plan) {
        TileLayout layout = spec.layout;
        String inside;
        if (plan.stitch != null || plan.count() == 1) {
            inside = layout.beforeSingle + repeated(plan.tokens(tokensPerTile)) + layout.afterSingle;
        } else {
            inside = grid(plan);
        }
        return layout.beforeImage + inside + layout.afterImage;
    }

    private String grid(TilePlan plan) {
        TileLayout layout = spec.layout;
        String visual = repeated(tokensPerTile);
        StringBuilder text = new StringBuilder();
        for (int row = 0; row < plan.rows; row++) {
            for (int col = 0; col < plan.cols; col++) {
                String before = layout.beforeTile.replace("{row}", String.valueOf(row + 1))
                    .replace("{col}", String.valueOf(col + 1))
                    .replace("{index}", String.valueOf(row * plan.cols + col + 1));
                text.append(before).append(visual).append(layout.afterTile);
            }
            text.append(layout.afterRow);
        }
        if (!plan.hasGlobal()) {
            return text.toString();
        }
        String whole = layout.beforeGlobal + visual + layout.afterGlobal;
        return plan.globalFirst ? whole + text : text + whole;
    }

    private String repeated(int count) {
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < count; i++) {
            text.append(spec.imageToken);
        }
        return text.toString();
    }
}
