package org.edgemllm.bundle;

/**
 * The text around one picture's visual tokens. {row}, {col} and {index}, all counted from 1, are filled in
 * {@code beforeTile}.
 */
public final class TileLayout {
    public String beforeImage;
    public String beforeTile;
    public String afterTile;
    public String afterRow;
    public String beforeGlobal;
    public String afterGlobal;
    public String beforeSingle;
    public String afterSingle;
    public String afterImage;
}
