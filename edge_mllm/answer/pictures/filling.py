"""A prompt into the decoder's cache: its pictures are encoded before, or meanwhile where the tower is apart."""

from __future__ import annotations

from collections.abc import Sequence

from edge_mllm.answer.decoding.prefill import Prefill
from edge_mllm.answer.pictures.arrival import Arrival
from edge_mllm.answer.pictures.encoder import PictureEncoder
from edge_mllm.answer.pictures.picture import ConversationPicture
from edge_mllm.answer.timings import Stopwatch
from edge_mllm.arrays import FloatArray
from edge_mllm.decoders.protocol import Decoder
from edge_mllm.machine.memory import AnonymousPeak


class Filling:
    """Encodes what is missing and computes it.

    Args:
        encoder: Of pictures.
        decoder: Whose cache is filled.
        anonymous: Told when much memory is taken.
    """

    def __init__(self, encoder: PictureEncoder, decoder: Decoder, anonymous: AnonymousPeak) -> None:
        self._encoder, self._decoder, self._anonymous = encoder, decoder, anonymous

    def fill(
        self, begun: Prefill, pictures: Sequence[ConversationPicture], watch: Stopwatch, max_new_tokens: int
    ) -> FloatArray:
        """Compute a prompt that was begun.

        Args:
            begun: With what was kept.
            pictures: Of the prompt, decided which of their tokens stay.
            watch: Of the answer.
            max_new_tokens: To make room for.

        Returns:
            Logits float32 [n_vocab] of the answer's first token.
        """
        watch.prefilled = begun.cells - begun.kept
        if self._encoder.apart and any(begun.missing) and not any(each.thinned for each in pictures):
            return self._beside(begun, pictures, watch, max_new_tokens)
        embeddings = [
            self._encoder.decoder_rows(picture, watch) if missing else self._none(picture)
            for picture, missing in zip(pictures, begun.missing, strict=True)
        ]
        self._anonymous.note()
        self._encoder.release()
        return self._computed(begun, embeddings, pictures, watch, max_new_tokens)

    def _beside(
        self, begun: Prefill, pictures: Sequence[ConversationPicture], watch: Stopwatch, max_new_tokens: int
    ) -> FloatArray:
        """While the tower, which leaves the processor alone, still gives rows: bit for bit as after it."""
        wanted = [picture for picture, missing in zip(pictures, begun.missing, strict=True) if missing]
        with Arrival(self._encoder, wanted, watch) as arrival:
            embeddings = [
                arrival.rows(picture) if missing else self._none(picture)
                for picture, missing in zip(pictures, begun.missing, strict=True)
            ]
            return self._computed(begun, embeddings, pictures, watch, max_new_tokens, arrival)

    def _computed(
        self,
        begun: Prefill,
        embeddings: Sequence[FloatArray],
        pictures: Sequence[ConversationPicture],
        watch: Stopwatch,
        max_new_tokens: int,
        arrival: Arrival | None = None,
    ) -> FloatArray:
        with watch.stage("load"):
            self._decoder.warm(watch.prefilled)
        with watch.stage("prefill"):
            self._decoder.reserve(begun.cells + max_new_tokens)
            grids, kept = [each.token_grid for each in pictures], [each.kept for each in pictures]
            logits = begun.fill(embeddings, grids, kept, wait=None if arrival is None else arrival.wait)
            watch.prefilled = begun.cells - begun.kept
        self._anonymous.note()
        return logits

    def _none(self, picture: ConversationPicture) -> FloatArray:
        return picture.no_embeddings(self._decoder.row_width)
