import java.io.FileOutputStream;
import java.io.InputStream;
import java.util.Enumeration;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import java.util.jar.JarOutputStream;
import org.objectweb.asm.ClassReader;
import org.objectweb.asm.ClassVisitor;
import org.objectweb.asm.ClassWriter;
import org.objectweb.asm.FieldVisitor;
import org.objectweb.asm.MethodVisitor;
import org.objectweb.asm.Opcodes;

/**
 * Brings class files of Java 11 and later to Java 8's version: nests go, private members that other classes of a nest use
 * are opened to their package, and private methods are called as Java 8 calls them. Usage: Downgrade IN.jar OUT.jar
 */
public final class Downgrade {
    private static final int ASM = Opcodes.ASM9;
    private static final String BETWEEN = "\n";

    private final Set<String> privates = new HashSet<String>();
    private final Set<String> opened = new HashSet<String>();

    public static void main(String[] arguments) throws Exception {
        new Downgrade().run(arguments[0], arguments[1]);
    }

    private void run(String from, String to) throws Exception {
        Map<String, byte[]> classes = read(from);
        for (byte[] each : classes.values()) {
            new ClassReader(each).accept(new Privates(), ClassReader.SKIP_CODE);
        }
        for (byte[] each : classes.values()) {
            new ClassReader(each).accept(new Uses(), 0);
        }
        try (JarOutputStream out = new JarOutputStream(new FileOutputStream(to))) {
            for (Map.Entry<String, byte[]> entry : classes.entrySet()) {
                ClassWriter writer = new ClassWriter(0);
                new ClassReader(entry.getValue()).accept(new Older(writer), 0);
                out.putNextEntry(new JarEntry(entry.getKey()));
                out.write(writer.toByteArray());
            }
        }
        System.out.println(opened.size() + " private members opened");
    }

    private static Map<String, byte[]> read(String file) throws Exception {
        Map<String, byte[]> classes = new HashMap<String, byte[]>();
        try (JarFile jar = new JarFile(file)) {
            for (Enumeration<JarEntry> entries = jar.entries(); entries.hasMoreElements();) {
                JarEntry entry = entries.nextElement();
                if (entry.getName().endsWith(".class") && !entry.getName().equals("module-info.class")) {
                    try (InputStream in = jar.getInputStream(entry)) {
                        classes.put(entry.getName(), in.readAllBytes());
                    }
                }
            }
        }
        return classes;
    }

    private static String key(String owner, String name, String type) {
        return owner + BETWEEN + name + BETWEEN + type;
    }

    /** Notes private members. */
    private final class Privates extends ClassVisitor {
        private String owner;

        Privates() {
            super(ASM);
        }

        @Override
        public void visit(int version, int access, String name, String signature, String parent, String[] faces) {
            owner = name;
        }

        @Override
        public FieldVisitor visitField(int access, String name, String type, String signature, Object value) {
            note(access, name, type);
            return null;
        }

        @Override
        public MethodVisitor visitMethod(int access, String name, String type, String signature, String[] thrown) {
            note(access, name, type);
            return null;
        }

        private void note(int access, String name, String type) {
            if ((access & Opcodes.ACC_PRIVATE) != 0) {
                privates.add(key(owner, name, type));
            }
        }
    }

    /** Notes private members that other classes use. */
    private final class Uses extends ClassVisitor {
        private String owner;

        Uses() {
            super(ASM);
        }

        @Override
        public void visit(int version, int access, String name, String signature, String parent, String[] faces) {
            owner = name;
        }

        @Override
        public MethodVisitor visitMethod(int access, String name, String type, String signature, String[] thrown) {
            return new MethodVisitor(ASM) {
                @Override
                public void visitFieldInsn(int code, String of, String field, String kind) {
                    note(of, field, kind);
                }

                @Override
                public void visitMethodInsn(int code, String of, String method, String kind, boolean face) {
                    note(of, method, kind);
                }
            };
        }

        private void note(String of, String name, String type) {
            if (!of.equals(owner) && privates.contains(key(of, name, type))) {
                opened.add(key(of, name, type));
            }
        }
    }

    /** Writes the older class. */
    private final class Older extends ClassVisitor {
        private String owner;

        Older(ClassVisitor next) {
            super(ASM, next);
        }

        @Override
        public void visit(int version, int access, String name, String signature, String parent, String[] faces) {
            owner = name;
            super.visit(Opcodes.V1_8, access, name, signature, parent, faces);
        }

        @Override
        public void visitNestHost(String host) {
            // Java 8 has none
        }

        @Override
        public void visitNestMember(String member) {
            // Java 8 has none
        }

        @Override
        public FieldVisitor visitField(int access, String name, String type, String signature, Object value) {
            return super.visitField(open(access, name, type), name, type, signature, value);
        }

        @Override
        public MethodVisitor visitMethod(int access, String name, String type, String signature, String[] thrown) {
            MethodVisitor next = super.visitMethod(open(access, name, type), name, type, signature, thrown);
            return new MethodVisitor(ASM, next) {
                @Override
                public void visitMethodInsn(int code, String of, String method, String kind, boolean face) {
                    String found = key(of, method, kind);
                    boolean own = of.equals(owner) && privates.contains(found) && !opened.contains(found);
                    boolean special = code == Opcodes.INVOKEVIRTUAL && own;
                    super.visitMethodInsn(special ? Opcodes.INVOKESPECIAL : code, of, method, kind, face);
                }
            };
        }

        private int open(int access, String name, String type) {
            return opened.contains(key(owner, name, type)) ? access & ~Opcodes.ACC_PRIVATE : access;
        }
    }
}
