package org.edgemllm.bundle;

/** How a user's turn begins, up to the text of it. */
public final class UserStart {
    /** What stands before the system message; "" where there is none. */
    public final String beforeSystem;
    /** What stands before the pictures, or before the text where there are none. */
    public final String before;
    /** One picture, with the placeholder in it. */
    public final String picture;
    /** What stands between the pictures and the text. */
    public final String beforeText;

    public UserStart(String beforeSystem, String before, String picture, String beforeText) {
        this.beforeSystem = beforeSystem;
        this.before = before;
        this.picture = picture;
        this.beforeText = beforeText;
    }
}
