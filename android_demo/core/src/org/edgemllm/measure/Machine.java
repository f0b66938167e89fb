package org.edgemllm.measure;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.Charset;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.edgemllm.engine.Cores;
import org.edgemllm.engine.Ort;

/** Which machine and which software a result belongs to, as {@code edge-mllm bench} records it. No names of people. */
public final class Machine {
    private static final Charset UTF_8 = Charset.forName("UTF-8");
    /** Names as /proc/cpuinfo spells them, of instruction sets that matrix products use. */
    private static final String[] FLAGS = {
        "ssse3", "sse4_1", "avx", "avx2", "fma", "f16c", "bmi2", "avx_vnni", "avx512f", "avx512bw", "avx512vl",
        "avx512vbmi", "avx512_vbmi", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
        "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme", "sme2"};
    private static final double FASTER = 0.8;

    private final String system;
    private final String device;

    /** {@code system}: its name and version; {@code device}: its maker's name for it, "" where the system has none. */
    public Machine(String system, String device) {
        this.system = system;
        this.device = device;
    }

    /** The machine's entry of a result. */
    Map<String, Object> document() {
        Map<String, String> cpu = fields("/proc/cpuinfo");
        Map<String, String> memory = fields("/proc/meminfo");
        Map<String, Object> processor = processor(cpu);
        Map<String, Object> out = new LinkedHashMap<String, Object>();
        out.put("id", id(processor));
        out.put("processor", processor);
        out.put("memory_bytes", kilobytes(memory.get("MemTotal")));
        out.put("swap_bytes", kilobytes(memory.get("SwapTotal")));
        out.put("cache_bytes", lastLevelCache());
        out.put("system", system);
        out.put("kernel", System.getProperty("os.version", ""));
        out.put("python", "");
        Map<String, Object> versions = new LinkedHashMap<String, Object>();
        versions.put("edge-mllm core on Java", System.getProperty("java.version", ""));
        versions.put("onnxruntime", Ort.version());
        out.put("versions", versions);
        out.put("commit", null);
        out.put("peaks", null);
        return out;
    }

    private Map<String, Object> processor(Map<String, String> cpu) {
        File folder = new File("/sys/devices/system/cpu");
        File[] cores = cores(folder);
        Set<String> physical = new HashSet<String>();
        for (File core : cores) {
            physical.add(line(new File(core, "topology/thread_siblings_list")));
        }
        physical.remove("");
        int logical = Math.max(cores.length, 1);
        Set<String> known = new HashSet<String>(Arrays.asList(
            (cpu.containsKey("flags") ? cpu.get("flags") : String.valueOf(cpu.get("Features"))).split(" ")));
        List<Object> flags = new ArrayList<Object>();
        for (String flag : FLAGS) {
            if (known.contains(flag)) {
                flags.add(flag);
            }
        }
        Map<String, Object> out = new LinkedHashMap<String, Object>();
        out.put("model", model(cpu));
        out.put("architecture", System.getProperty("os.arch", "").replace("amd64", "x86_64"));
        out.put("logical_cores", (long) logical);
        out.put("physical_cores", (long) (physical.isEmpty() ? logical : physical.size()));
        out.put("usable_cores", (long) Runtime.getRuntime().availableProcessors());
        out.put("quota_cores", null);
        out.put("clusters", clusters(cores));
        out.put("flags", flags);
        out.put("governor", orNull(line(new File(folder, "cpu0/cpufreq/scaling_governor"))));
        out.put("frequency_driver", orNull(line(new File(folder, "cpu0/cpufreq/scaling_driver"))));
        out.put("sensible_threads", (long) Cores.sensible());
        return out;
    }

    private String model(Map<String, String> cpu) {
        String name = cpu.containsKey("model name") ? cpu.get("model name") : cpu.get("Hardware");
        name = name == null ? System.getProperty("os.arch", "") : name;
        String board = device.isEmpty() ? line(new File("/proc/device-tree/model")).replace("\0", "").trim() : device;
        return board.isEmpty() ? name : board + " / " + name;
    }

    /** First 12 hexadecimal digits over model, cores and flags: the same on two machines of one kind. */
    private static String id(Map<String, Object> processor) {
        StringBuilder text = new StringBuilder();
        text.append(processor.get("model")).append('|').append(processor.get("logical_cores")).append('|');
        int number = 0;
        for (Object flag : (List<?>) processor.get("flags")) {
            text.append(number++ == 0 ? "" : " ").append(flag);
        }
        return sha256(text.toString().getBytes(UTF_8)).substring(0, 12);
    }

    /** Hexadecimal SHA-256. */
    static String sha256(byte[] data) {
        try {
            StringBuilder text = new StringBuilder();
            for (byte each : MessageDigest.getInstance("SHA-256").digest(data)) {
                text.append(Character.forDigit(each >> 4 & 15, 16)).append(Character.forDigit(each & 15, 16));
            }
            return text.toString();
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
    }

    /** Physical cores of a kind, fastest first; kinds lie at least a fifth apart. */
    private static List<Object> clusters(File[] cores) {
        Map<String, Double> speeds = new HashMap<String, Double>();
        for (File core : cores) {
            String speed = line(new File(core, "cpu_capacity"));
            speed = speed.isEmpty() ? line(new File(core, "cpufreq/cpuinfo_max_freq")) : speed;
            String siblings = line(new File(core, "topology/thread_siblings_list"));
            if (speed.matches("[0-9]+")) {
                speeds.put(siblings.isEmpty() ? core.getName() : siblings, Double.valueOf(speed));
            }
        }
        double[] sorted = new double[speeds.size()];
        int number = 0;
        for (double speed : speeds.values()) {
            sorted[number++] = speed;
        }
        Arrays.sort(sorted);
        List<Object> counts = new ArrayList<Object>();
        double fastest = 0;
        for (int i = sorted.length - 1; i >= 0; i--) {
            int last = counts.size() - 1;
            if (last >= 0 && sorted[i] > FASTER * fastest) {
                counts.set(last, (Long) counts.get(last) + 1);
            } else {
                counts.add(1L);
                fastest = sorted[i];
            }
        }
        return counts;
    }

    private static Long lastLevelCache() {
        Long largest = null;
        for (int index = 0; index < 8; index++) {
            String size = line(new File("/sys/devices/system/cpu/cpu0/cache/index" + index + "/size"));
            if (size.matches("[0-9]+K")) {
                long bytes = Long.parseLong(size.substring(0, size.length() - 1)) * 1024;
                largest = largest == null ? bytes : Math.max(largest, bytes);
            }
        }
        return largest;
    }

    private static File[] cores(File folder) {
        List<File> found = new ArrayList<File>();
        File[] all = folder.listFiles();
        for (File each : all == null ? new File[0] : all) {
            if (each.getName().matches("cpu[0-9]+")) {
                found.add(each);
            }
        }
        return found.toArray(new File[0]);
    }

    private static long kilobytes(String value) {
        return value == null ? 0 : Long.parseLong(value.split(" ")[0]) * 1024;
    }

    private static String orNull(String text) {
        return text.isEmpty() ? null : text;
    }

    /** Lines such as {@code name: value}; of equal names the first. */
    private static Map<String, String> fields(String file) {
        Map<String, String> found = new HashMap<String, String>();
        try (BufferedReader lines = reader(new File(file))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                int colon = line.indexOf(':');
                String name = colon < 0 ? "" : line.substring(0, colon).trim();
                if (!name.isEmpty() && !found.containsKey(name)) {
                    found.put(name, line.substring(colon + 1).trim());
                }
            }
        } catch (IOException error) {
            return found; // the system does not tell
        }
        return found;
    }

    private static String line(File file) {
        try (BufferedReader lines = reader(file)) {
            String found = lines.readLine();
            return found == null ? "" : found.trim();
        } catch (IOException error) {
            return "";
        }
    }

    private static BufferedReader reader(File file) throws IOException {
        return new BufferedReader(new InputStreamReader(new FileInputStream(file), UTF_8));
    }
}
