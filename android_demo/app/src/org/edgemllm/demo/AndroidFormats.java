package org.edgemllm.demo;

import android.graphics.Bitmap;
import android.graphics.BitmapFactory;
import android.os.Build;

import java.io.ByteArrayOutputStream;

import org.edgemllm.measure.Machine;
import org.edgemllm.picture.Rgb;
import org.edgemllm.picture.file.Decoded;
import org.edgemllm.picture.file.PictureFile;
import org.edgemllm.screen.Platform;

/** JPEG and whatever else the phone decodes; a picture too large for the heap is decoded by halves. */
final class AndroidFormats implements Platform {
    private static final int QUALITY = 90;

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

    @Override
    public byte[] encode(Rgb picture) {
        int[] colours = new int[picture.width * picture.height];
        for (int i = 0; i < colours.length; i++) {
            colours[i] = 0xFF000000 | (picture.data[i * 3] & 255) << 16 | (picture.data[i * 3 + 1] & 255) << 8
                | picture.data[i * 3 + 2] & 255;
        }
        Bitmap bitmap = Bitmap.createBitmap(colours, picture.width, picture.height, Bitmap.Config.ARGB_8888);
        try {
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            bitmap.compress(Bitmap.CompressFormat.JPEG, QUALITY, out);
            return out.toByteArray();
        } finally {
            bitmap.recycle();
        }
    }

    @Override
    public Machine machine() {
        return new Machine("Android " + Build.VERSION.RELEASE, Build.MANUFACTURER + " " + Build.MODEL);
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
