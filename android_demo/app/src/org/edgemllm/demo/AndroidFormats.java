package org.edgemllm.demo;

import android.graphics.Bitmap;
import android.graphics.BitmapFactory;

import org.edgemllm.picture.Rgb;
import org.edgemllm.picture.file.Decoded;
import org.edgemllm.picture.file.PictureFile;

/** JPEG and whatever else the phone decodes; a picture too large for the heap is decoded by halves. */
final class AndroidFormats implements PictureFile.OtherFormats {
    @Override
    public Decoded decode(byte[] file) {
        BitmapFactory.Options options = new BitmapFactory.Options();
        options.inJustDecodeBounds = true;
        BitmapFactory.decodeByteArray(file, 0, file.length, options);
        int width = options.outWidth;
        int height = options.outHeight;
        if (width < 1) {
            return null;
        }
        PictureFile.checkSize(width, height, "given");
        options.inJustDecodeBounds = false;
        options.inPreferredConfig = Bitmap.Config.ARGB_8888;
        options.inSampleSize = Decoded.halves(width, height);
        Bitmap bitmap = BitmapFactory.decodeByteArray(file, 0, file.length, options);
        if (bitmap == null) {
            return null;
        }
        try {
            return new Decoded(rgb(bitmap), width, height, options.inSampleSize);
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
