package org.edgemllm.json;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/**
 * A JSON object read field by field: every field has a type, and those that were not asked for are unknown, which
 * {@link #end()} refuses.
 */
public final class Fields {
    private final Map<?, ?> values;
    private final String prefix;
    private final Set<String> asked = new HashSet<String>();

    private Fields(Map<?, ?> values, String where) {
        this.values = values;
        this.prefix = where.isEmpty() ? "" : where + ".";
    }

    /** The fields of an object; {@code where} is its dotted path. */
    public static Fields of(Object value, String where) throws FieldException {
        if (!(value instanceof Map)) {
            throw new FieldException(where, "expected an object, found " + kind(value));
        }
        return new Fields((Map<?, ?>) value, where);
    }

    /** Whether a field is there and not null. */
    public boolean has(String name) {
        asked.add(name);
        return values.get(name) != null;
    }

    /** Any value; the field must be there. */
    public Object any(String name) throws FieldException {
        asked.add(name);
        if (!values.containsKey(name)) {
            throw new FieldException(prefix + name, "the field is missing");
        }
        return values.get(name);
    }

    public Fields object(String name) throws FieldException {
        return of(any(name), prefix + name);
    }

    public String text(String name) throws FieldException {
        return typed(name, any(name), String.class, "str");
    }

    public String text(String name, String otherwise) throws FieldException {
        return present(name) ? text(name) : otherwise;
    }

    public boolean flag(String name, boolean otherwise) throws FieldException {
        return present(name) ? typed(name, any(name), Boolean.class, "bool") : otherwise;
    }

    /** A whole number that fits an int. */
    public int whole(String name) throws FieldException {
        return toInt(name, any(name));
    }

    public int whole(String name, int otherwise) throws FieldException {
        return present(name) ? whole(name) : otherwise;
    }

    /** A whole number or null. */
    public Integer wholeOrNull(String name) throws FieldException {
        return has(name) ? Integer.valueOf(whole(name)) : null;
    }

    public long big(String name) throws FieldException {
        return typed(name, any(name), Long.class, "int");
    }

    public double number(String name) throws FieldException {
        return toDouble(name, any(name));
    }

    public double number(String name, double otherwise) throws FieldException {
        return present(name) ? number(name) : otherwise;
    }

    public List<?> list(String name) throws FieldException {
        return typed(name, any(name), List.class, "list");
    }

    public int[] wholes(String name) throws FieldException {
        List<?> found = list(name);
        int[] values = new int[found.size()];
        for (int i = 0; i < values.length; i++) {
            values[i] = toInt(name + "[" + i + "]", found.get(i));
        }
        return values;
    }

    /** Exactly {@code count} numbers. */
    public double[] numbers(String name, int count) throws FieldException {
        List<?> found = list(name);
        if (found.size() != count) {
            throw new FieldException(prefix + name, "expected " + count + " values, found " + found.size());
        }
        double[] values = new double[count];
        for (int i = 0; i < count; i++) {
            values[i] = toDouble(name + "[" + i + "]", found.get(i));
        }
        return values;
    }

    /** One of a closed list of texts. */
    public String choice(String name, String... allowed) throws FieldException {
        return chosen(name, any(name), allowed);
    }

    /** One of a closed list, the first where the field is missing. */
    public String choiceOrFirst(String name, String... allowed) throws FieldException {
        return present(name) ? choice(name, allowed) : allowed[0];
    }

    /** The names in the object, in order; asking for them marks all as known. */
    public List<String> names() {
        List<String> found = new ArrayList<String>();
        for (Object name : values.keySet()) {
            found.add((String) name);
            asked.add((String) name);
        }
        return found;
    }

    /** Refuse fields that nobody asked for. */
    public void end() throws FieldException {
        TreeSet<String> unknown = new TreeSet<String>();
        for (Object name : values.keySet()) {
            unknown.add((String) name);
        }
        unknown.removeAll(asked);
        if (!unknown.isEmpty()) {
            throw new FieldException(prefix + unknown.first(), "unknown field");
        }
    }

    /** Dotted path of a field. */
    public String path(String name) {
        return prefix + name;
    }

    private boolean present(String name) {
        asked.add(name);
        return values.containsKey(name);
    }

    private String chosen(String name, Object value, String[] allowed) throws FieldException {
        for (String each : allowed) {
            if (each.equals(value)) {
                return each;
            }
        }
        StringBuilder names = new StringBuilder();
        for (String each : allowed) {
            names.append(names.length() == 0 ? "" : ", ").append(each);
        }
        throw new FieldException(prefix + name, "'" + value + "' is not one of " + names);
    }

    private int toInt(String name, Object value) throws FieldException {
        long found = typed(name, value, Long.class, "int");
        if (found != (int) found) {
            throw new FieldException(prefix + name, found + " is not a sane size");
        }
        return (int) found;
    }

    private double toDouble(String name, Object value) throws FieldException {
        double found = value instanceof Long ? ((Long) value).doubleValue() : typed(name, value, Double.class, "float");
        if (Double.isNaN(found) || Double.isInfinite(found)) {
            throw new FieldException(prefix + name, found + " is not a finite number");
        }
        return found;
    }

    private <T> T typed(String name, Object value, Class<T> type, String said) throws FieldException {
        if (!type.isInstance(value)) {
            throw new FieldException(prefix + name, "expected " + said + ", found " + kind(value));
        }
        return type.cast(value);
    }

    /** The type of a value as Python calls it. */
    private static String kind(Object value) {
        if (value == null) {
            return "null";
        }
        if (value instanceof Map) {
            return "dict";
        }
        if (value instanceof List) {
            return "list";
        }
        if (value instanceof Boolean) {
            return "bool";
        }
        return value instanceof String ? "str" : value instanceof Long ? "int" : "float";
    }
}
