package org.edgemllm.engine;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.HashSet;
import java.util.Set;

/** How many threads to start: the fast physical cores, and no more than this process may use. */
public final class Cores {
    /** A core counts as fast from this share of the fastest core's capacity on. */
    private static final double FAST = 0.6;

    private Cores() {
    }

    public static int sensible() {
        int allowed = Runtime.getRuntime().availableProcessors();
        File[] cores = new File("/sys/devices/system/cpu").listFiles();
        double fastest = 0;
        Set<String> fast = new HashSet<String>();
        for (File core : cores == null ? new File[0] : cores) {
            fastest = core.getName().matches("cpu[0-9]+") ? Math.max(fastest, capacity(core)) : fastest;
        }
        for (File core : cores == null ? new File[0] : cores) {
            if (core.getName().matches("cpu[0-9]+") && capacity(core) >= FAST * fastest) {
                String siblings = line(new File(core, "topology/thread_siblings_list"));
                fast.add(siblings.isEmpty() ? core.getName() : siblings);
            }
        }
        return Math.max(1, fast.isEmpty() ? allowed : Math.min(allowed, fast.size()));
    }

    private static double capacity(File core) {
        String text = line(new File(core, "cpu_capacity"));
        return text.matches("[0-9]+") ? Double.parseDouble(text) : 0;
    }

    private static String line(File file) {
        try (BufferedReader lines = new BufferedReader(new InputStreamReader(new FileInputStream(file), "US-ASCII"))) {
            String found = lines.readLine();
            return found == null ? "" : found.trim();
        } catch (IOException error) {
            return "";
        }
    }
}
