package org.edgemllm.demo;

import android.content.ContentResolver;
import android.content.Context;
import android.content.res.AssetManager;
import android.database.Cursor;
import android.net.Uri;
import android.provider.DocumentsContract;
import android.provider.DocumentsContract.Document;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;

import org.edgemllm.bundle.Bundle;
import org.edgemllm.bundle.Shelf;

/** Bundles in the app's own storage: the starter from the app itself, others from a .zip or a folder of the phone. */
final class Bundles {
    private static final String STARTER = "starter.edge";
    private static final String CHOSEN = "chosen.edge";
    private static final String SPEC = "bundle.json";

    private final Context context;
    private final Shelf shelf;

    Bundles(Context context) {
        this.context = context;
        this.shelf = new Shelf(context.getFilesDir());
    }

    /** The bundle that comes with the app. */
    File starter() throws IOException {
        final AssetManager assets = context.getAssets();
        File spec = new File(shelf.place(STARTER), SPEC);
        if (spec.isFile() && sameText(assets, Bundle.read(spec))) {
            return shelf.place(STARTER);
        }
        return shelf.put(STARTER, new Shelf.Source() {
            @Override
            public void files(Shelf.Taker taker) throws IOException {
                for (String name : assets.list(STARTER)) {
                    try (InputStream in = assets.open(STARTER + "/" + name)) {
                        taker.file(name, in);
                    }
                }
            }
        });
    }

    /** A bundle from a .zip, in the place of the one before. */
    File unpack(InputStream zip) {
        return shelf.put(CHOSEN, Shelf.zip(zip));
    }

    /** A bundle from a folder that the user chose in the system's picker, in the place of the one before. */
    File copy(final Uri folder) {
        final ContentResolver storage = context.getContentResolver();
        final Uri children = DocumentsContract.buildChildDocumentsUriUsingTree(folder,
            DocumentsContract.getTreeDocumentId(folder));
        return shelf.put(CHOSEN, new Shelf.Source() {
            @Override
            public void files(Shelf.Taker taker) throws IOException {
                String[] columns = {
                    Document.COLUMN_DOCUMENT_ID, Document.COLUMN_DISPLAY_NAME, Document.COLUMN_MIME_TYPE};
                try (Cursor rows = storage.query(children, columns, null, null, null)) {
                    while (rows != null && rows.moveToNext()) {
                        if (!Document.MIME_TYPE_DIR.equals(rows.getString(2))) {
                            Uri file = DocumentsContract.buildDocumentUriUsingTree(folder, rows.getString(0));
                            try (InputStream in = storage.openInputStream(file)) {
                                taker.file(rows.getString(1), in);
                            }
                        }
                    }
                }
            }
        });
    }

    /** Whether bundle.json of the app is the one that was unpacked. */
    private static boolean sameText(AssetManager assets, byte[] unpacked) throws IOException {
        try (InputStream in = assets.open(STARTER + "/" + SPEC)) {
            for (byte each : unpacked) {
                if (in.read() != (each & 255)) {
                    return false;
                }
            }
            return in.read() < 0;
        }
    }
}
