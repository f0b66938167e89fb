package org.edgemllm.demo;

import android.app.Activity;
import android.content.ClipData;
import android.content.ClipboardManager;
import android.content.Context;
import android.content.Intent;
import android.net.Uri;
import android.os.Bundle;
import android.provider.MediaStore;
import android.util.Base64;
import android.webkit.JavascriptInterface;
import android.webkit.ValueCallback;
import android.webkit.WebChromeClient;
import android.webkit.WebSettings;
import android.webkit.WebView;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.util.LinkedHashMap;
import java.util.Map;

import org.edgemllm.engine.Cores;
import org.edgemllm.errors.EdgeMllmException;
import org.edgemllm.json.JsonText;
import org.edgemllm.screen.Calls;
import org.edgemllm.screen.Events;
import org.edgemllm.screen.Screen;

/** One screen: a page without network in a WebView, and the library behind it. */
public final class MainActivity extends Activity implements Events {
    private static final int PICTURE = 1;
    private static final int BUNDLE = 2;
    private static final int FOLDER = 3;

    private WebView page;
    private Calls calls;
    private Screen screen;
    private Bundles bundles;
    /** Waits for the picture that the page asked for. */
    private ValueCallback<Uri[]> waiting;
    private boolean takes;

    @Override
    protected void onCreate(Bundle saved) {
        super.onCreate(saved);
        bundles = new Bundles(this);
        screen = new Screen(this, new AndroidFormats(), Cores.sensible());
        calls = new Calls(screen, this, new Calls.Base64Decoder() {
            @Override
            public byte[] decode(String text) {
                return Base64.decode(text, Base64.DEFAULT);
            }
        });
        page = new WebView(this);
        WebSettings settings = page.getSettings();
        settings.setJavaScriptEnabled(true);
        settings.setBlockNetworkLoads(true);
        settings.setAllowFileAccess(true);
        page.addJavascriptInterface(new Bridge(), "EdgeNative");
        page.setWebChromeClient(new Chooser());
        page.loadUrl("file:///android_asset/page/index.html");
        setContentView(page);
    }

    @Override
    protected void onDestroy() {
        screen.stop();
        calls.later(new Runnable() {
            @Override
            public void run() {
                screen.close();
            }
        });
        calls.close();
        page.destroy();
        super.onDestroy();
    }

    @Override
    public void event(Map<String, Object> event) {
        final String script = "window.edge(" + JsonText.of(event, 0).replace("\u2028", "\\u2028")
            .replace("\u2029", "\\u2029") + ")";
        runOnUiThread(new Runnable() {
            @Override
            public void run() {
                page.evaluateJavascript(script, null);
            }
        });
    }

    @Override
    protected void onActivityResult(int request, int result, Intent data) {
        final Uri uri = data == null ? null : data.getData();
        if (request == PICTURE && waiting != null) {
            Uri chosen = result != RESULT_OK ? null : takes ? PhotoProvider.PHOTO : uri;
            waiting.onReceiveValue(chosen == null ? null : new Uri[] {chosen});
            waiting = null;
        } else if (request == BUNDLE && result == RESULT_OK && uri != null) {
            calls.later(new Runnable() {
                @Override
                public void run() {
                    openZip(uri);
                }
            });
        } else if (request == FOLDER && result == RESULT_OK && uri != null) {
            calls.later(new Runnable() {
                @Override
                public void run() {
                    openFolder(uri);
                }
            });
        }
    }

    private void openZip(Uri uri) {
        try (InputStream zip = getContentResolver().openInputStream(uri)) {
            open(bundles.unpack(zip));
        } catch (IOException error) {
            fail("the .zip cannot be used: " + error.getMessage());
        } catch (EdgeMllmException error) {
            fail(error.getMessage());
        }
    }

    private void openFolder(Uri folder) {
        try {
            open(bundles.copy(folder));
        } catch (EdgeMllmException error) {
            fail(error.getMessage());
        } catch (RuntimeException error) {
            fail("the folder cannot be read: " + EdgeMllmException.line(error)); // what providers of storage throw
        }
    }

    private void openStarter() {
        try {
            open(bundles.starter());
        } catch (IOException error) {
            fail("the starter cannot be unpacked: " + error.getMessage());
        } catch (EdgeMllmException error) {
            fail(error.getMessage());
        }
    }

    /** With low memory where tower and decoder together are more than half of what the system can give. */
    private void open(File bundle) {
        long bytes = 0;
        File[] files = bundle.listFiles();
        for (File file : files == null ? new File[0] : files) {
            bytes += file.length();
        }
        Long free = org.edgemllm.answer.Memory.available();
        screen.open(bundle, free != null && bytes > free / 2);
    }

    private void fail(String message) {
        Map<String, Object> event = new LinkedHashMap<String, Object>();
        event.put("event", "error");
        event.put("message", message);
        event(event);
    }

    /** What the page can call; on a thread of the WebView. */
    private final class Bridge {
        @JavascriptInterface
        public void call(String json) {
            calls.call(json);
        }

        /** The page hears events now. */
        @JavascriptInterface
        public void ready() {
            calls.later(new Runnable() {
                @Override
                public void run() {
                    openStarter();
                }
            });
        }

        @JavascriptInterface
        public void bundle() {
            Intent intent = new Intent(Intent.ACTION_OPEN_DOCUMENT);
            intent.addCategory(Intent.CATEGORY_OPENABLE);
            intent.setType("application/zip");
            startActivityForResult(intent, BUNDLE);
        }

        @JavascriptInterface
        public void folder() {
            startActivityForResult(new Intent(Intent.ACTION_OPEN_DOCUMENT_TREE), FOLDER);
        }

        @JavascriptInterface
        public void copy(String text) {
            ClipboardManager board = (ClipboardManager) getSystemService(Context.CLIPBOARD_SERVICE);
            board.setPrimaryClip(ClipData.newPlainText("edge-mllm", text));
        }
    }

    /** Opens the system's camera or picker where the page asks for a file. */
    private final class Chooser extends WebChromeClient {
        @Override
        public boolean onShowFileChooser(WebView view, ValueCallback<Uri[]> callback, FileChooserParams parameters) {
            if (waiting != null) {
                waiting.onReceiveValue(null);
            }
            waiting = callback;
            takes = parameters.isCaptureEnabled();
            Intent intent = takes ? new Intent(MediaStore.ACTION_IMAGE_CAPTURE) : new Intent(Intent.ACTION_GET_CONTENT);
            if (takes) {
                intent.putExtra(MediaStore.EXTRA_OUTPUT, PhotoProvider.PHOTO);
                intent.addFlags(Intent.FLAG_GRANT_WRITE_URI_PERMISSION);
                intent.setClipData(ClipData.newRawUri("", PhotoProvider.PHOTO));
            } else {
                intent.addCategory(Intent.CATEGORY_OPENABLE);
                intent.setType("image/*");
            }
            try {
                startActivityForResult(intent, PICTURE);
            } catch (android.content.ActivityNotFoundException error) {
                waiting.onReceiveValue(null);
                waiting = null;
                fail("there is no app for that on this phone");
            }
            return true;
        }
    }
}
