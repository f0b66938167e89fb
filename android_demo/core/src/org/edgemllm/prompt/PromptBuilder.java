package org.edgemllm.prompt;

import java.util.ArrayList;
import java.util.List;

import org.edgemllm.bundle.BundleSpec;
import org.edgemllm.bundle.PromptSpec;
import org.edgemllm.errors.PromptException;
import org.edgemllm.picture.TilePlan;
import org.edgemllm.text.Tokenizer;

/**
 * Messages and pictures to token ids. A special token written in a message is that token, as in the reference; the image
 * token and the placeholder of a picture are refused, because they would claim a picture's place.
 */
public final class PromptBuilder {
    private final PromptSpec spec;
    private final int tokensPerTile;
    private final int contextLength;
    private final Tokenizer tokenizer;
    private final PictureText pictures;

    public PromptBuilder(BundleSpec bundle, Tokenizer tokenizer) {
        this.spec = bundle.prompt;
        this.tokensPerTile = bundle.vision.tokensPerTile;
        this.contextLength = bundle.decoder.contextLength;
        this.tokenizer = tokenizer;
        this.pictures = new PictureText(spec, tokensPerTile);
    }

    /** The prompt of a conversation whose pictures are tiled by these plans, in order. */
    public PromptIds build(List<Message> messages, List<TilePlan> plans) {
        check(messages, plans.size());
        String rendered = new TurnText(spec).render(messages);
        return ids(rendered, plans);
    }

    /** The prompt of a text that a chat template rendered, with a placeholder for each picture. */
    public PromptIds ids(String rendered, List<TilePlan> plans) {
        checkRoom(plans);
        StringBuilder text = new StringBuilder();
        int done = 0;
        int used = 0;
        for (int at = rendered.indexOf(spec.placeholder); at >= 0; at = rendered.indexOf(spec.placeholder, done)) {
            text.append(rendered, done, at);
            if (used < plans.size()) {
                text.append(pictures.of(plans.get(used)));
            }
            used++;
            done = at + spec.placeholder.length();
        }
        if (used != plans.size()) {
            throw new PromptException("the chat template made " + used + " places for " + plans.size()
                + " pictures; this model's template may not take pictures where these messages have them");
        }
        text.append(rendered, done, rendered.length());
        int[] ids = tokenised(text.toString());
        return new PromptIds(ids, slots(ids, plans), spec.imageTokenId, text.toString());
    }

    /** Refuse pictures that alone overflow the context before so many tokens are written out. */
    private void checkRoom(List<TilePlan> plans) {
        long sum = 0;
        for (TilePlan plan : plans) {
            sum += plan.tokens(tokensPerTile);
        }
        if (sum >= contextLength) {
            throw PromptException.overflow(sum + 1, contextLength, sum);
        }
    }

    private void check(List<Message> messages, int pictures) {
        int items = 0;
        for (Message message : messages) {
            items += message.pictures;
            for (String reserved : new String[] {spec.imageToken, spec.placeholder}) {
                if (message.text.contains(reserved)) {
                    throw new PromptException("the text contains '" + reserved + "', which stands for a picture in this "
                        + "model; take it out and hand the picture over as a picture");
                }
            }
        }
        if (items != pictures) {
            throw new PromptException("the messages have places for " + items + " pictures, " + pictures + " were given");
        }
    }

    /** A text that writes the begin token itself gets no second one. */
    private int[] tokenised(String text) {
        boolean written = spec.bosToken != null && !spec.bosToken.isEmpty() && text.startsWith(spec.bosToken);
        int[] ids = tokenizer.encode(text, !written);
        if (spec.bosTokenId != null && !written && (ids.length == 0 || ids[0] != spec.bosTokenId)) {
            int[] longer = new int[ids.length + 1];
            longer[0] = spec.bosTokenId;
            System.arraycopy(ids, 0, longer, 1, ids.length);
            return longer;
        }
        return ids;
    }

    private List<Slot> slots(int[] ids, List<TilePlan> plans) {
        List<Integer> places = new ArrayList<Integer>();
        for (int i = 0; i < ids.length; i++) {
            if (ids[i] == spec.imageTokenId) {
                places.add(i);
            }
        }
        int sum = 0;
        for (TilePlan plan : plans) {
            sum += plan.tokens(tokensPerTile);
        }
        if (places.size() != sum) {
            throw new PromptException("the prompt has " + places.size() + " image tokens but the pictures need " + sum
                + "; the text must not contain the image token in any form");
        }
        List<Slot> slots = new ArrayList<Slot>();
        int done = 0;
        for (TilePlan plan : plans) {
            int count = plan.tokens(tokensPerTile);
            int start = places.get(done);
            slots.add(new Slot(start, places.get(done + count - 1) + 1 - start, count));
            done += count;
        }
        return slots;
    }
}
