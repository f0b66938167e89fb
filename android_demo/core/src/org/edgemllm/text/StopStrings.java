package org.edgemllm.text;

import java.util.List;

import org.edgemllm.errors.SettingException;

/** Cuts a stream of text before the first stop string, also where one arrives in pieces. */
public final class StopStrings {
    private final List<String> stops;
    private String held = "";
    private boolean hit;

    public StopStrings(List<String> stops) {
        for (String stop : stops) {
            if (stop.isEmpty()) {
                throw new SettingException("a stop string is empty; leave it out");
            }
        }
        this.stops = stops;
    }

    /** Whether a stop string was met; nothing may follow then. */
    public boolean hit() {
        return hit;
    }

    /** Add text; return what can be shown. */
    public String push(String text) {
        if (stops.isEmpty()) {
            return text;
        }
        String all = held + text;
        int first = -1;
        int keep = 0;
        for (String stop : stops) {
            int place = all.indexOf(stop);
            first = place >= 0 && (first < 0 || place < first) ? place : first;
            keep = Math.max(keep, overlap(all, stop));
        }
        if (first >= 0) {
            held = "";
            hit = true;
            return all.substring(0, first);
        }
        held = all.substring(all.length() - keep);
        return all.substring(0, all.length() - keep);
    }

    /** Return what was held back because it might have begun a stop string. */
    public String flush() {
        String rest = held;
        held = "";
        return rest;
    }

    /** Length of the longest end of a text that begins a stop string. */
    private static int overlap(String text, String stop) {
        for (int length = Math.min(stop.length() - 1, text.length()); length > 0; length--) {
            if (text.endsWith(stop.substring(0, length))) {
                return length;
            }
        }
        return 0;
    }
}
