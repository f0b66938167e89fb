"""Variants of a GGUF decoder for a sweep: its parts, the types they can have, and files of any mixture of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mllm_export.gguf.compose import compose_gguf
from edge_mllm_quant.recipes.override import Override, apply_overrides, tensor_expression
from edge_mllm_quant.recipes.recipe import Recipe, find_recipe

if TYPE_CHECKING:
    from edge_mllm_quant.weights.activations import Moments

GROUPS: Mapping[str, tuple[str, ...]] = {
    "head": ("head",),
    "embeddings": ("embeddings",),
    "attention": ("blk.*.attn_q", "blk.*.attn_k", "blk.*.attn_v", "blk.*.attn_output"),
    "feed-forward up": ("blk.*.ffn_up", "blk.*.ffn_gate"),
    "feed-forward down": ("blk.*.ffn_down",),
}
"""Parts of a GGUF decoder -> targets of ``--override``."""
TYPES = ("q4_0", "iq4_nl", "q4_k", "q5_0", "q6_k", "q8_0")
BASE = "q8_0"
MIXED = "mixed"
"""Name of a recipe that was put together."""
_MIXED_BITS = 5.5
"""Nominal; few enough to be calibrated, too many to be called 4-bit."""


@dataclass(frozen=True)
class Variant:
    """A finished file."""

    path: Path
    bytes: int
    tensors: Mapping[str, int]
    """Tensor name -> bytes."""


class Donors:
    """A decoder quantised once to each type; any mixture of parts is put together from these files."""

    def __init__(self, text_dir: Path, place: Path, moments: Mapping[str, Moments]) -> None:
        """Nothing is written yet.

        Args:
            text_dir: A plain causal LM directory.
            place: Where the files go.
            moments: What the layers saw.
        """
        self._text, self._place, self._moments = text_dir, place, moments
        self._files: dict[str, Path] = {}

    def recipe(self, recipe: Recipe) -> Variant:
        """A recipe, quantised for itself."""
        from edge_mllm_export.gguf.header import read_entries
        from edge_mllm_export.write.gguf.decoder import write_decoder_gguf
        from edge_mllm_export.write.gguf.quantise import options_of

        path = self._place / f"{recipe.name}.gguf"
        write_decoder_gguf(self._text, path, recipe.base, name="x", options=options_of(recipe, self._moments))
        sizes = {name: entry.nbytes for name, entry in read_entries(path).items()}
        return Variant(path, path.stat().st_size, sizes)

    def mixture(self, types: Mapping[str, str]) -> Variant:
        """Parts (keys of :data:`GROUPS`) in other types, everything else in 8 bits."""
        base = self._file(BASE)
        parts = self.parts()
        wanted = {name: self._file(kind) for part, kind in types.items() for name in parts[part] if kind != BASE}
        path = self._place / "mixture.gguf"
        sizes = compose_gguf(base, wanted, path)
        return Variant(path, path.stat().st_size, sizes)

    def parts(self) -> dict[str, list[str]]:
        """The parts of this decoder -> its tensors. Without a head of its own, the embedding table is the head."""
        from edge_mllm_export.gguf.header import read_entries

        return present_parts(read_entries(self._file(BASE)))

    def _file(self, kind: str) -> Path:
        """The decoder with every part in one type, made when it is first asked for."""
        if kind not in self._files:
            everything = replace(mixed_recipe(dict.fromkeys(GROUPS, kind)), name=f"all-{kind}")
            self._files[kind] = self.recipe(everything).path
        return self._files[kind]


def present_parts(tensors: Mapping[str, object]) -> dict[str, list[str]]:
    """The groups that a decoder with these tensors has -> its tensors."""
    head = "output.weight" if "output.weight" in tensors else "token_embd.weight"
    found = {"head": [head], "embeddings": [name for name in ("token_embd.weight",) if name != head]}
    for group, targets in GROUPS.items():
        if group not in found:
            patterns = [tensor_expression(target) for target in targets]
            found[group] = [name for name in tensors if any(re.search(pattern, name) for pattern in patterns)]
    return {group: names for group, names in found.items() if names}


def mixed_recipe(types: Mapping[str, str]) -> Recipe:
    """A GGUF recipe of 8 bits with other types for some parts (keys of :data:`GROUPS`)."""
    overrides = [Override(target, kind) for group, kind in types.items() for target in GROUPS[group] if kind != BASE]
    recipe = replace(find_recipe("gguf", BASE), name=MIXED, gguf_type=BASE, bits=_MIXED_BITS)
    return apply_overrides({"gguf": recipe}, overrides)["gguf"]
