package org.edgemllm.answer;

import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.LinkedHashMap;
import java.util.Map;

/** Memory of this process, as Linux reports it. */
public final class Memory {
    private Long anonymousPeak;

    /** Highest resident bytes so far; null where the system does not tell. */
    public static Long peakResident() {
        return status("VmHWM");
    }

    /** Resident bytes now; null where the system does not tell. */
    public static Long resident() {
        return status("VmRSS");
    }

    /** Bytes that the system can give without pressing others; null where it does not tell. */
    public static Long available() {
        return kilobytes("/proc/meminfo", "MemAvailable");
    }

    /** Resident, anonymous, file and swapped bytes; null where the system does not tell. */
    public static Map<String, Object> now() {
        Long resident = resident();
        Long anonymous = status("RssAnon");
        Map<String, Object> out = new LinkedHashMap<String, Object>();
        out.put("rss", resident == null ? Long.valueOf(0) : resident);
        out.put("anonymous", anonymous);
        out.put("file", resident == null || anonymous == null ? null : Long.valueOf(resident - anonymous));
        out.put("swapped", status("VmSwap"));
        return out;
    }

    /** The largest anonymous memory seen; null where the system does not tell. */
    Long anonymousPeak() {
        return anonymousPeak;
    }

    /** Read the anonymous memory now: no kernel counts its peak. */
    void note() {
        Long now = status("RssAnon");
        if (now != null) {
            anonymousPeak = anonymousPeak == null ? now : Long.valueOf(Math.max(now, anonymousPeak));
        }
    }

    private static Long status(String name) {
        return kilobytes("/proc/self/status", name);
    }

    private static Long kilobytes(String file, String name) {
        try (BufferedReader lines = new BufferedReader(new InputStreamReader(new FileInputStream(file), "US-ASCII"))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                if (line.startsWith(name + ":")) {
                    return Long.parseLong(line.substring(name.length() + 1).trim().split(" ")[0]) * 1024;
                }
            }
        } catch (IOException error) {
            return null;
        }
        return null;
    }
}
