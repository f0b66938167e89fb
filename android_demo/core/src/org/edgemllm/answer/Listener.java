package org.edgemllm.answer;

/** Hears of an answer while it is made. */
public interface Listener {
    /** Tiles that the tower is done with. */
    void tiles(int done, int all);

    /** New text; return false to stop the answer here. */
    boolean text(String piece);

    /** Hears nothing. */
    Listener NOBODY = new Listener() {
        @Override
        public void tiles(int done, int all) {
            // nobody watches
        }

        @Override
        public boolean text(String piece) {
            return true;
        }
    };
}
