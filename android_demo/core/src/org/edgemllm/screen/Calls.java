package org.edgemllm.screen;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

import org.edgemllm.json.FieldException;
import org.edgemllm.json.Fields;
import org.edgemllm.json.Json;

/** Carries the page's calls, which are JSON, to the screen's one thread. */
public final class Calls {
    private final Screen screen;
    private final Events events;
    private final Base64Decoder base64;
    private final ExecutorService worker = Executors.newSingleThreadExecutor();

    /** Base64 is another class on every platform. */
    public interface Base64Decoder {
        byte[] decode(String text);
    }

    public Calls(Screen screen, Events events, Base64Decoder base64) {
        this.screen = screen;
        this.events = events;
        this.base64 = base64;
    }

    /** Do something on the screen's thread. */
    public void later(Runnable work) {
        worker.execute(work);
    }

    /** One call of the page; returns at once. */
    public void call(String json) {
        try {
            handle(Fields.of(Json.parse(json), ""));
        } catch (FieldException error) {
            fail(error.getMessage());
        } catch (Json.JsonException error) {
            fail(error.getMessage());
        } catch (IllegalArgumentException error) {
            fail("the picture did not arrive whole");
        }
    }

    /** End the thread when its work is done. */
    public void close() {
        worker.shutdown();
    }

    private void handle(Fields asked) throws FieldException {
        String what = asked.choice("do", "ask", "picture", "plan", "measure", "stop");
        if (what.equals("stop")) {
            screen.stop();
        } else if (what.equals("measure")) {
            later(new Runnable() {
                @Override
                public void run() {
                    screen.measure();
                }
            });
        } else if (what.equals("picture")) {
            final byte[] file = base64.decode(asked.text("data"));
            later(new Runnable() {
                @Override
                public void run() {
                    screen.picture(file);
                }
            });
        } else {
            final String detail = asked.choiceOrFirst("detail", "auto", "low", "high");
            final Integer most = asked.wholeOrNull("max_image_tokens");
            final String prompt = what.equals("ask") ? asked.text("prompt") : null;
            later(new Runnable() {
                @Override
                public void run() {
                    if (prompt == null) {
                        screen.plan(detail, most);
                    } else {
                        screen.ask(prompt, detail, most);
                    }
                }
            });
        }
    }

    private void fail(String message) {
        Map<String, Object> event = new LinkedHashMap<String, Object>();
        event.put("event", "error");
        event.put("message", message);
        events.event(event);
    }
}
