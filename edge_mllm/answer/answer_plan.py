"""What an answer will take, known before anything is encoded."""

from __future__ import annotations

from dataclasses import dataclass

from edge_mllm.answer.budget import Reduction
from edge_mllm.answer.timings import ImageUsage, ReductionUsage
from edge_mllm.costs.memory import MemoryPlan


@dataclass(frozen=True, kw_only=True)
class ImagePlan:
    """What one picture will become."""

    width: int
    height: int
    tiles: int
    tokens: int
    reduced: bool
    """Tiled more coarsely than the model does by itself."""
    reduced_by: Reduction | None = None
    """The setting that asked for it."""

    @staticmethod
    def of(usage: ImageUsage) -> ImagePlan:
        """The part of an answer's record that is known before."""
        return ImagePlan(
            width=usage.width,
            height=usage.height,
            tiles=usage.tiles,
            tokens=usage.tokens,
            reduced=usage.reduced,
            reduced_by=usage.reduced_by,
        )


@dataclass(frozen=True, kw_only=True)
class AnswerPlan:
    """Counts are exact; bytes are estimates on the safe side.

    Seconds come from earlier answers of this process, else from what ``edge-mllm tune`` or a device profile measured
    on this machine. Cells that the decoder still has cost nothing; embeddings found in a cache count as if they had to
    be made.
    """

    images: tuple[ImagePlan, ...]
    prompt_tokens: int
    """Visual ones included."""
    image_tokens: int
    reused_tokens: int
    """Of the prompt's, those whose keys and values the decoder still has."""
    context: int
    """Most tokens of prompt and answer together."""
    fits: bool
    """Whether the prompt and at least one token of an answer fit the context."""
    file_bytes: int
    """Weights on disk that the answer needs: the decoder's, and the tower's where there are pictures."""
    cache_bytes: int | None
    """Keys and values of the prompt and of ``max_new_tokens``; None while the decoder is not loaded."""
    vision_s: float | None
    """The tower over all tiles that have to be encoded; None until it was measured."""
    prefill_s: float | None
    """The decoder over what it does not have of the prompt; None until it was measured."""
    preprocess_s: float | None
    """Reading and cutting the pictures; None until it was measured."""
    rates: str | None
    """Where the speeds come from: ``this process``, ``edge-mllm tune``, ``device profile`` or ``probe``."""
    memory: MemoryPlan
    reduction: ReductionUsage | None = None
    """What a reduction of visual tokens takes away; the counts above are those after it."""

    @property
    def ttft_s(self) -> float | None:
        """Seconds to the first token without loading; None until they are known."""
        if self.vision_s is None or self.prefill_s is None:
            return None
        return (self.preprocess_s or 0.0) + self.vision_s + self.prefill_s
