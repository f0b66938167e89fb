"""The two files, read and checked before llama.cpp sees them: it ends the process on what it does not expect."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_mllm.bundle.gguf_checks import check_tower, check_values
from edge_mllm.bundle.gguf_header import GGUFHeader, read_gguf, stored_as
from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.errors import BundleError, ModelNotFoundError

_TOKENS, _TEMPLATE, _CLIP = "tokenizer.ggml.tokens", "tokenizer.chat_template", "clip"
_LARGEST = 1 << 24
BEFORE_PICTURE = "edge_mllm.before_picture"
"""Key of a tower's file: text before every picture, ``{picture}`` its number, which libmtmd does not write."""
POSITIONS = "edge_mllm.positions"
"""Key of a tower's file: ``sequential`` where pictures have positions like text, though the language model could place
their tokens in rows and columns."""
_MERGES_BETWEEN = re.compile(r"v\.vit_merger\.")
"""Tensors of towers that make patches one between two layers; pictures of such models have positions like text."""
_SECTIONS = "rope.dimension_sections"
_STATE = re.compile(r"blk\.(\d+)\.(?:ssm_|shortconv\.|time_mix_)")
"""Tensors of layers that keep a state and no cells, as llama.cpp names them."""


@dataclass(frozen=True)
class PairFiles:
    """A language model and, for pictures, its tower."""

    model: Path
    mmproj: Path | None
    name: str
    decoder: DecoderSpec
    template: str | None
    """Text of the chat template."""
    strips_first_space: bool
    """Whether the tokenizer writes a space before a text that the text does not have."""
    before_picture: str
    """Text before every picture, in which ``{picture}`` stands for its number in the conversation, from 0."""
    facts: dict[str, str]
    """For people: architecture, projector, sizes."""

    @property
    def neighbours(self) -> list[str]:
        """Names of files beside the model that look like its tower."""
        return sorted(file.name for file in self.model.parent.glob("*mmproj*.gguf") if file != self.model)


def is_gguf(path: Path) -> bool:
    """Whether a path is a file that says it is GGUF, or is called so."""
    if not path.is_file():
        return path.suffix == ".gguf"
    with path.open("rb") as stream:
        return path.suffix == ".gguf" or stream.read(4) == b"GGUF"


def read_pair(model: Path, mmproj: Path | None) -> PairFiles:
    """Read both headers.

    Args:
        model: The language model.
        mmproj: The vision tower with its projector; None for text alone.

    Raises:
        ModelNotFoundError: A file is not there.
        BundleError: A file is damaged, or is of another kind. Widths are compared when libmtmd loads the tower.
    """
    header = _read(model)
    check_values(model, header)
    kind = str(header.metadata.get("general.architecture", ""))
    if kind == _CLIP or header.metadata.get("general.type") == "mmproj":
        reason = "it is a vision tower; give the language model as `model` and this file as `mmproj`"
        raise BundleError(model, reason)
    tensors = {tensor.name for tensor in header.tensors}
    if not kind or _TOKENS not in header.lengths or "token_embd.weight" not in tensors:
        raise BundleError(model, "it holds no language model")
    decoder = _decoder(model, header, kind)
    facts, before = _facts(header, decoder, kind), ""
    if mmproj is not None:
        tower = _tower(mmproj)
        facts |= _tower_facts(mmproj, tower)
        decoder, before = _placed(decoder, tower, header, kind), _before_picture(mmproj, tower)
    template = header.metadata.get(_TEMPLATE)
    return PairFiles(
        model=model,
        mmproj=mmproj,
        name=str(header.metadata.get("general.name") or model.stem),
        decoder=decoder,
        template=template if isinstance(template, str) else None,
        strips_first_space=header.metadata.get("tokenizer.ggml.model") == "llama"
        and header.metadata.get("tokenizer.ggml.add_space_prefix", True) is not False,
        before_picture=before,
        facts=facts,
    )


def _facts(header: GGUFHeader, decoder: DecoderSpec, kind: str) -> dict[str, str]:
    """About the language model, for people."""
    return {
        "architecture": kind,
        "decoder": f"{decoder.n_layer} layers, width {decoder.n_embd}, {decoder.n_vocab} tokens known, "
        f"context {decoder.context_length}",
        "decoder's weights": stored_as(header.tensors),
    }


def _read(file: Path) -> GGUFHeader:
    if not file.is_file():
        raise ModelNotFoundError(file)
    return read_gguf(file)


def _decoder(file: Path, header: GGUFHeader, kind: str) -> DecoderSpec:
    def number(key: str, default: Any = None) -> int:
        value = header.metadata.get(f"{kind}.{key}", default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST:
            raise BundleError(file, f"its metadata say {kind}.{key} is {value!r}, expected a whole number")
        return value

    width, layers, context = number("embedding_length"), number("block_count"), number("context_length")
    if not (width and layers and context):
        raise BundleError(file, "its metadata say it has no layers, no width or no context")
    return DecoderSpec(
        n_embd=width,
        n_vocab=header.lengths[_TOKENS],
        n_layer=layers,
        context_length=context,
        positions="mrope" if f"{kind}.{_SECTIONS}" in header.lengths else "sequential",
        head_dim=number("attention.key_length", 0) or None,
        deepstack_layers=number("n_deepstack_layers", 0) or None,
        state_layers=len({found[1] for tensor in header.tensors if (found := _STATE.match(tensor.name))}) or None,
    )


def _placed(decoder: DecoderSpec, tower: GGUFHeader, model: GGUFHeader, kind: str) -> DecoderSpec:
    """The decoder with the positions that this tower's pictures have."""
    told = tower.metadata.get(POSITIONS) == "sequential"
    like_text = told or any(_MERGES_BETWEEN.match(tensor.name) for tensor in tower.tensors)
    if decoder.positions != "mrope" or not like_text:
        return decoder
    shares = model.arrays.get(f"{kind}.{_SECTIONS}", ())
    sections = tuple(share for share in shares if isinstance(share, int) and share > 0)
    return replace(decoder, positions="sequential", mrope_sections=sections)


def _before_picture(file: Path, tower: GGUFHeader) -> str:
    found = tower.metadata.get(BEFORE_PICTURE, "")
    if not isinstance(found, str):
        raise BundleError(file, f"its metadata say {BEFORE_PICTURE} is {found!r}, expected a text")
    return found


def _tower(file: Path) -> GGUFHeader:
    """The header of a tower's file, checked."""
    header = _read(file)
    if header.metadata.get("general.architecture") != _CLIP:
        raise BundleError(file, "it is no vision tower; `mmproj` takes the mmproj file, `model` the language model")
    if header.metadata.get("clip.has_vision_encoder") is not True:
        reason = f"it has no vision encoder (projector '{_projector(header)}'), so it takes no pictures"
        raise BundleError(file, reason)
    check_tower(file, header)
    return header


def _tower_facts(file: Path, header: GGUFHeader) -> dict[str, str]:
    """For people."""
    return {
        "tower": f"{file.name}, projector {_projector(header)}, pictures cut by libmtmd",
        "tower's weights": stored_as(header.tensors),
    }


def _projector(header: GGUFHeader) -> str:
    """Its type, as libmtmd calls it."""
    return str(header.metadata.get("clip.vision.projector_type", header.metadata.get("clip.projector_type", "unknown")))
