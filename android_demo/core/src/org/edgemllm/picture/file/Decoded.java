package org.edgemllm.picture.file;

import org.edgemllm.picture.Rgb;

/** A picture out of a file, perhaps smaller than there: what is too large for the heap is decoded by halves. */
public final class Decoded {
    /** Bytes of the heap for a pixel: of the decoder, of the picture, and for what follows. */
    private static final int BYTES = 24;

    public final Rgb rgb;
    /** Width and height in the file, as they lie there. */
    public final int fileWidth;
    public final int fileHeight;
    /** So many pixels on a side of the file's picture became one: 1, 2, 4 and so on. */
    public final int by;

    public Decoded(Rgb rgb, int fileWidth, int fileHeight, int by) {
        this.rgb = rgb;
        this.fileWidth = fileWidth;
        this.fileHeight = fileHeight;
        this.by = by;
    }

    /** By how much a picture must be smaller than in its file so that this process can decode it: 1, 2, 4 and so on. */
    public static int halves(int width, int height) {
        long most = Runtime.getRuntime().maxMemory() / BYTES;
        int by = 1;
        while ((long) width * height / by / by > most) {
            by *= 2;
        }
        return by;
    }

    /** What there is to say; null where the picture is as in its file. */
    public String note() {
        return by == 1 ? null : fileWidth + "x" + fileHeight + " pixels are too many for this process; decoded at 1/"
            + by + " of the size, " + rgb.width + "x" + rgb.height;
    }
}
