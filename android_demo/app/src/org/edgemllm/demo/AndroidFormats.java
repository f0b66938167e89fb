package org.edgemllm.demo;

import android.graphics.Bitmap;
import android.graphics.BitmapFactory;

import org.edgemllm.picture.Rgb;
import org.edgemllm.picture.file.PictureFile;

/** JPEG and whatever else the phone decodes; a picture too large for the heap is decoded by halves. */
final class AndroidFormats implements PictureFile.OtherFormats {
    /** Most pixels of a decoded picture: with its RGB copy, about a quarter of a small phone's heap. */
    private static final long MOST_PIXELS = 12000000;

    @Override
    public Rgb decode(byte[] file) {
        BitmapFactory.Options options = new BitmapFactory.Options();
        options.inJustDecodeBounds = true;
        BitmapFactory.decodeByteArray(file, 0, file.length, options);
        if (options.outWidth < 1) {
            return null;
        }
        PictureFile.checkSize(options.outWidth, options.outHeight, "given");
        options.inJustDecodeBounds = false;
        options.inPreferredConfig = Bitmap.Config.ARGB_8888;
        options.inSampleSize = 1;
        while ((long) options.outWidth * options.outHeight / options.inSampleSize / options.inSampleSize > MOST_PIXELS) {
            options.inSampleSize *= 2;
        }
        Bitmap bitmap = BitmapFactory.decodeByteArray(file, 0, file.length, options);
        if (bitmap == null) {
            return null;
        }
        try {
            return rgb(bitmap);
        } finally {
            bitmap.recycle();
        }
    }

    private static Rgb rgb(Bitmap bitmap) {
        Rgb out = new Rgb(bitmap.getWidth(), bitmap.getHeight());
        int[] line = new int[out.width];
        for (int y = 0; y < out.height; y++) {
            bitmap.getPixels(line, 0, out.width, 0, y, out.width, 1);
            out.line(y, line);
        }
        return out;
    }
}
