package org.edgemllm.errors;

/** An option has a value outside its range. */
public class SettingException extends EdgeMllmException {
    private static final long serialVersionUID = 1L;

    public SettingException(String message) {
        super(message);
    }
}
