package org.edgemllm.engine;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Set;

import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtLoggingLevel;
import ai.onnxruntime.OrtSession;

import org.edgemllm.errors.EngineException;

/** Opens ONNX Runtime sessions with the same options as the Python runtime; no telemetry. */
public final class Ort {
    private static final OrtEnvironment ENVIRONMENT = environment();
    /** Instructions that sum products of bytes in 32 bits. */
    private static final String[] BYTE_PRODUCTS = {"avx_vnni", "avx512_vnni", "amx_int8"};

    private Ort() {
    }

    /** ONNX Runtime's own version. */
    public static String version() {
        return ENVIRONMENT.getVersion();
    }

    static OrtEnvironment env() {
        return ENVIRONMENT;
    }

    /**
     * A session on the CPU.
     *
     * @param stopsSpinning threads wait without turning when a run is over, and leave their cores to others
     */
    static OrtSession open(File graph, int threads, boolean stopsSpinning) {
        try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
            options.setIntraOpNumThreads(threads);
            options.setInterOpNumThreads(1);
            options.setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR);
            options.setMemoryPatternOptimization(false);
            if (productsOverflow(System.getProperty("os.arch", ""), cpuFlags())) {
                options.addConfigEntry("session.x64quantprecision", "1");
            }
            if (stopsSpinning) {
                options.addConfigEntry("session.force_spinning_stop", "1");
            }
            return ENVIRONMENT.createSession(graph.getPath(), options);
        } catch (OrtException error) {
            throw new EngineException("ONNX Runtime cannot load " + graph.getName() + ": "
                + EngineException.line(error), error);
        }
    }

    /** Whether this is an x86 processor that sums products of bytes in 16 bits; not where its flags are not known. */
    static boolean productsOverflow(String architecture, Set<String> flags) {
        boolean x86 = architecture.equals("amd64") || architecture.equals("x86_64");
        boolean sums = false;
        for (String each : BYTE_PRODUCTS) {
            sums |= flags.contains(each);
        }
        return x86 && flags.contains("avx2") && !sums;
    }

    private static Set<String> cpuFlags() {
        Set<String> flags = new HashSet<String>();
        try (BufferedReader lines = new BufferedReader(new InputStreamReader(new FileInputStream("/proc/cpuinfo"),
            "US-ASCII"))) {
            for (String line = lines.readLine(); line != null && flags.isEmpty(); line = lines.readLine()) {
                if (line.startsWith("flags")) {
                    flags.addAll(Arrays.asList(line.substring(line.indexOf(':') + 1).trim().split(" ")));
                }
            }
        } catch (IOException error) {
            return flags; // the system does not tell
        }
        return flags;
    }

    private static OrtEnvironment environment() {
        OrtEnvironment environment = OrtEnvironment.getEnvironment(OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR);
        try {
            environment.setTelemetry(false);
        } catch (OrtException error) {
            throw new EngineException("ONNX Runtime's telemetry cannot be switched off", error);
        }
        return environment;
    }
}
