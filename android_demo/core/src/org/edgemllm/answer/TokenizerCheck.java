package org.edgemllm.answer;

import org.edgemllm.bundle.Bundle;
import org.edgemllm.bundle.PromptSpec;
import org.edgemllm.errors.BundleException;
import org.edgemllm.text.Tokenizer;

/** Whether a bundle's tokenizer goes with its decoder and its prompts. */
final class TokenizerCheck {
    private TokenizerCheck() {
    }

    static void check(Bundle bundle, Tokenizer tokenizer) {
        if (tokenizer.size() > bundle.spec.decoder.vocabulary) {
            throw new BundleException(bundle.directory, "the tokenizer has " + tokenizer.size()
                + " tokens, the decoder " + bundle.spec.decoder.vocabulary + "; they do not belong together");
        }
        PromptSpec prompt = bundle.spec.prompt;
        Integer found = tokenizer.id(prompt.imageToken);
        if (found == null || found != prompt.imageTokenId) {
            throw new BundleException(bundle.directory, "'" + prompt.imageToken + "' is token " + found
                + " in the tokenizer but " + prompt.imageTokenId + " in bundle.json");
        }
    }
}
