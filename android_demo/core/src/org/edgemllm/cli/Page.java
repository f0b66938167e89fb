package org.edgemllm.cli;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.Charset;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpHandler;
import com.sun.net.httpserver.HttpServer;

import org.edgemllm.bundle.Bundle;
import org.edgemllm.json.JsonText;
import org.edgemllm.screen.Calls;
import org.edgemllm.screen.Events;
import org.edgemllm.screen.Screen;

/** The app's page in a browser of this machine: its calls and events go over HTTP instead of Android's bridge. */
final class Page implements Events, HttpHandler {
    private static final Charset UTF_8 = Charset.forName("UTF-8");
    private static final long WAIT_MS = 20000;

    private final List<String> events = new ArrayList<String>();
    private final File folder;
    private Calls calls;

    private Page(File folder) {
        this.folder = folder;
    }

    /** Serve until the process ends. */
    static void serve(final File bundle, File folder, int port, int threads) throws IOException {
        Page page = new Page(folder);
        final Screen screen = new Screen(page, new JvmFormats(), threads);
        page.calls = new Calls(screen, page, new Calls.Base64Decoder() {
            @Override
            public byte[] decode(String text) {
                return Base64.getDecoder().decode(text);
            }
        });
        page.calls.later(new Runnable() {
            @Override
            public void run() {
                screen.open(bundle, false);
            }
        });
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", page);
        server.start();
        System.err.println("http://127.0.0.1:" + server.getAddress().getPort() + "/");
    }

    @Override
    public synchronized void event(Map<String, Object> event) {
        events.add(JsonText.of(event, 0));
        notifyAll();
    }

    @Override
    public void handle(HttpExchange exchange) throws IOException {
        String path = exchange.getRequestURI().getPath();
        if (path.equals("/call") && exchange.getRequestMethod().equals("POST")) {
            calls.call(new String(body(exchange.getRequestBody()), UTF_8));
            send(exchange, 200, "application/json", "{}".getBytes(UTF_8));
        } else if (path.equals("/events")) {
            int from = Integer.parseInt(exchange.getRequestURI().getQuery().replace("from=", ""));
            send(exchange, 200, "application/json", since(from).getBytes(UTF_8));
        } else {
            String name = path.equals("/") ? "index.html" : path.substring(1);
            File file = new File(folder, name);
            boolean known = name.matches("[a-z]+\\.(html|js|css)") && file.isFile();
            String type = name.endsWith(".js") ? "text/javascript" : name.endsWith(".css") ? "text/css" : "text/html";
            send(exchange, known ? 200 : 404, type + "; charset=utf-8", known ? Bundle.read(file) : new byte[0]);
        }
    }

    /** Events from a number on; waits for the first. */
    private synchronized String since(int from) {
        long end = System.currentTimeMillis() + WAIT_MS;
        while (events.size() <= from && System.currentTimeMillis() < end) {
            try {
                wait(WAIT_MS);
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
                break;
            }
        }
        StringBuilder out = new StringBuilder("[");
        for (int i = from; i < events.size(); i++) {
            out.append(i == from ? "" : ",").append(events.get(i));
        }
        return out.append(']').toString();
    }

    private static byte[] body(InputStream in) throws IOException {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        byte[] block = new byte[1 << 16];
        for (int found = in.read(block); found >= 0; found = in.read(block)) {
            out.write(block, 0, found);
        }
        return out.toByteArray();
    }

    private static void send(HttpExchange exchange, int code, String type, byte[] data) throws IOException {
        exchange.getResponseHeaders().set("Content-Type", type);
        exchange.sendResponseHeaders(code, data.length == 0 ? -1 : data.length);
        exchange.getResponseBody().write(data);
        exchange.close();
    }
}
