"""Which tokens stay of the pictures of a prompt, decided as late as it must be and as seldom as it can be."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from edge_mllm.answer.pictures.encoder import PictureEncoder
from edge_mllm.answer.pictures.picture import ConversationPicture
from edge_mllm.answer.timings import Stopwatch
from edge_mllm.arrays import IntArray
from edge_mllm.decoders.lazy import LazyDecoder
from edge_mllm.decoders.protocol import Decoder
from edge_mllm.picture.reduction.spec import TokenReduction
from edge_mllm.picture.reduction.thinning import kept_tokens
from edge_mllm.prompt.build import PromptIds, thin_prompt

_MOST_REMEMBERED = 256


class Settler:
    """Remembers decisions by what they depend on, so that a picture seen before need not be encoded to know them.

    Args:
        encoder: Makes embeddings where a decision needs them.
        decoder: Gives the question's token embeddings; it may not be loaded yet.
    """

    def __init__(self, encoder: PictureEncoder, decoder: Decoder) -> None:
        self._encoder, self._decoder = encoder, decoder
        self._known: OrderedDict[bytes, IntArray] = OrderedDict()

    def settle(self, prompt: PromptIds, pictures: Sequence[ConversationPicture], watch: Stopwatch) -> PromptIds:
        """Decide for every picture of a prompt, and take the tokens that go out of it; arguments as :meth:`decide`."""
        self.decide(pictures, watch)
        with watch.stage("reduction"):
            return thin_prompt(prompt, [picture.kept for picture in pictures])

    def expected(self, prompt: PromptIds, pictures: Sequence[ConversationPicture]) -> PromptIds:
        """The prompt with as many tokens as :meth:`settle` will leave; nothing is encoded.

        A picture that is not decided yet is counted with its first tokens.
        """
        kept: list[IntArray | None] = []
        for picture in pictures:
            open_one = picture.thinned is not None and picture.kept is None and not self._recall(picture)
            kept.append(np.arange(picture.prompt_tokens, dtype=np.int64) if open_one else picture.kept)
        return thin_prompt(prompt, kept)

    def decide(self, pictures: Sequence[ConversationPicture], watch: Stopwatch) -> None:
        """Set ``kept`` of every picture that has a reduction that thins.

        Args:
            pictures: With their question, where the reduction needs it.
            watch: For the stages' times.

        Raises:
            EngineError: A tower failed, or the decoder does not give its token embeddings away.
        """
        thinned = [(each, each.thinned) for each in pictures if each.thinned is not None and each.kept is None]
        waiting = [(picture, reduction) for picture, reduction in thinned if not self._recall(picture)]
        for picture, reduction in waiting:
            if reduction.needs_rows:
                self._encoder.embeddings(picture, watch)
        if any(reduction.needs_query for _, reduction in waiting):
            self._encoder.release()
            if isinstance(self._decoder, LazyDecoder):
                with watch.stage("load"):
                    self._decoder.open()
        with watch.stage("reduction"):
            for picture, reduction in waiting:
                picture.kept = self._decide(picture, reduction, watch)
                self._known[picture.key] = picture.kept
            while len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)

    def _recall(self, picture: ConversationPicture) -> bool:
        picture.kept = self._known.get(picture.key)
        if picture.kept is not None:
            self._known.move_to_end(picture.key)
        return picture.kept is not None

    def _decide(self, picture: ConversationPicture, reduction: TokenReduction, watch: Stopwatch) -> IntArray:
        rows = self._encoder.embeddings(picture, watch) if reduction.needs_rows else None
        query = self._decoder.embed(np.array(picture.query, np.int64)) if reduction.needs_query else None
        if rows is not None:  # what goes to further layers is no embedding beside those of texts
            rows = rows[:, : self._decoder.n_embd]
        return kept_tokens(reduction, picture.areas, rows, query)
