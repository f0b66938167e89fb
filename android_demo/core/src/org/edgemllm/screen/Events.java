package org.edgemllm.screen;

import java.util.Map;

/** Hears what the screen has to show; called from the thread that works. */
public interface Events {
    void event(Map<String, Object> event);
}
