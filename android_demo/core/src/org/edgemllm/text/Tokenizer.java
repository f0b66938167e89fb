package org.edgemllm.text;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import org.edgemllm.errors.EngineException;
import org.edgemllm.errors.PromptException;
import org.edgemllm.json.FieldException;
import org.edgemllm.json.Fields;
import org.edgemllm.json.Json;

/**
 * Text to token ids and back, by a tokenizer.json of byte-level or SentencePiece-like byte-pair encoding. What a file
 * asks for and this version does not know is an error when it is opened.
 */
public final class Tokenizer {
    private final Normalizers normalizers;
    private final AddedTokens added;
    private final PreTokenizers preTokenizers;
    private final Bpe model;
    private final PostProcessor postProcessor;
    private final Decoders decoders;
    private final Map<Integer, String> texts = new HashMap<Integer, String>();

    /** Read a tokenizer.json. */
    public Tokenizer(String json) {
        try {
            Fields document = Fields.of(Json.parse(json), "");
            normalizers = new Normalizers(document);
            added = new AddedTokens(document, normalizers);
            preTokenizers = new PreTokenizers(document);
            model = new Bpe(document.object("model"));
            postProcessor = new PostProcessor(document);
            decoders = new Decoders(document);
        } catch (Json.JsonException error) {
            throw new EngineException("the tokenizer cannot be read (" + error.getMessage() + ")");
        } catch (FieldException error) {
            throw new EngineException("the tokenizer cannot be used here: " + error.getMessage());
        }
        for (Map.Entry<String, Integer> entry : model.vocabulary().entrySet()) {
            texts.put(entry.getValue(), entry.getKey());
        }
        texts.putAll(added.contents());
    }

    /** The id of a token; null where there is none. */
    public Integer id(String token) {
        for (Map.Entry<Integer, String> entry : added.contents().entrySet()) {
            if (entry.getValue().equals(token)) {
                return entry.getKey();
            }
        }
        return model.vocabulary().get(token);
    }

    /** One more than the largest id. */
    public int size() {
        int largest = -1;
        for (int id : texts.keySet()) {
            largest = Math.max(largest, id);
        }
        return largest + 1;
    }

    /**
     * Token ids of a text.
     *
     * @param withSpecial add what the tokenizer puts round a text, such as a token that begins it
     */
    public int[] encode(String text, boolean withSpecial) {
        if (Unicode.hasLoneSurrogate(text)) {
            throw new PromptException("the text has characters that are not Unicode (a lone surrogate)");
        }
        IntList ids = new IntList();
        boolean first = true;
        for (AddedTokens.Span span : added.inRaw(text)) {
            if (span.id != null) {
                ids.add(span.id);
            } else {
                encodeNormalised(normalizers.apply(span.text), first, ids);
            }
            first = false;
        }
        return withSpecial ? postProcessor.apply(ids.toArray()) : ids.toArray();
    }

    /** Text of tokens without the special ones; bytes that are no whole character read as U+FFFD. */
    public String decode(int[] ids) {
        List<String> tokens = new ArrayList<String>();
        for (int id : ids) {
            String text = texts.get(id);
            if (text != null && !added.isSpecial(id)) {
                tokens.add(text);
            }
        }
        return tokens.isEmpty() ? "" : decoders.apply(tokens);
    }

    private void encodeNormalised(String text, boolean first, IntList ids) {
        for (AddedTokens.Span span : added.inNormalised(text)) {
            if (span.id != null) {
                ids.add(span.id);
            } else {
                for (String piece : preTokenizers.apply(span.text, first)) {
                    model.encode(piece, ids);
                }
            }
            first = false;
        }
    }
}
