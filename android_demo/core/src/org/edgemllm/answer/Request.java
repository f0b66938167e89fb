package org.edgemllm.answer;

import java.util.ArrayList;
import java.util.List;

import org.edgemllm.errors.SettingException;

/** What is asked of a model beside the messages themselves. */
public final class Request {
    public int maxNewTokens = 256;
    /** Whether the answer goes on when the model has ended its turn, for measurements of a fixed length. */
    public boolean ignoresEnd;
    public SamplingOptions sampling = new SamplingOptions();
    /** Texts that end the answer; they are not part of it. */
    public List<String> stop = new ArrayList<String>();
    public Budget budget = new Budget("auto", null);
    /** Most resident bytes of the process while the answer is made; null for no limit. */
    public Long maxMemory;

    /** Refuse values outside their ranges. */
    void check() {
        if (maxNewTokens < 1) {
            throw new SettingException("max_new_tokens is " + maxNewTokens + "; it must be at least 1");
        }
        sampling.check();
    }
}
