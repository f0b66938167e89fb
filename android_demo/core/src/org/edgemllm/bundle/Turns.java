package org.edgemllm.bundle;

/**
 * A model's chat template as the pieces that it writes around what is said: there is no template language on the phone.
 * The export made them from the template and checked them against it.
 */
public final class Turns {
    /** Beginnings without and with pictures: of a conversation, of one with a system message, of a later turn. */
    public UserStart first;
    public UserStart firstPictures;
    /** null where the template takes no system message. */
    public UserStart system;
    public UserStart systemPictures;
    public UserStart later;
    public UserStart laterPictures;
    /** After an earlier user's text, before the reply. */
    public String answer;
    /** After the last user's text: the end of the prompt. */
    public String ask;
    /** Whether the template takes white space off the ends of what was said: by the user, the model, the system. */
    public boolean trimsUser;
    public boolean trimsReply;
    public boolean trimsSystem;
}
