"""What a GGUF file really weighs: true bits per weight, and the tensors that did not get the type asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edge_mllm_export.gguf.header import read_entries


@dataclass(frozen=True)
class GgufReport:
    """What was written."""

    bytes: int
    """Size of the file."""
    bits_per_weight: float
    """Bits of all tensor data by the number of weights, embeddings and norms included."""
    fallbacks: tuple[tuple[str, str], ...]
    """Tensors whose shape does not fit the asked type, with what became of them ("q4_K -> q5_0")."""
    recipe: str = ""
    types: tuple[tuple[str, int], ...] = ()
    """Type name and number of weights in it, the largest first."""

    @property
    def label(self) -> str:
        """The recipe with its true size, for example ``q4_0 (4.53 bits per weight)``."""
        return f"{self.recipe} ({self.bits_per_weight:.2f} bits per weight)"


def read_report(path: Path, recipe: str, fallbacks: tuple[tuple[str, str], ...] = ()) -> GgufReport:
    """Count a finished file.

    Args:
        path: the GGUF file.
        recipe: the name under which it was made.
        fallbacks: what the quantiser reported.
    """
    weights: Counter[str] = Counter()
    bits = 0
    for tensor in read_entries(path).values():
        weights[tensor.dtype] += tensor.weights
        bits += 8 * tensor.nbytes
    return GgufReport(
        bytes=path.stat().st_size,
        bits_per_weight=bits / weights.total(),
        fallbacks=fallbacks,
        recipe=recipe,
        types=tuple(weights.most_common()),
    )
