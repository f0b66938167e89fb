"""From the structure of a tokenizer.json to llama.cpp's name for the same way of splitting text.

The name is derived from what the file does (its pre-tokeniser, normaliser and merge rule), never from the model's name
or from a hash of an example. An unknown structure is an error, because a near miss gives other token ids on some text.
The patterns are those of tokenizer.json files; what llama.cpp does under each name is in its src/llama-vocab.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_mllm_export.errors import CheckpointError

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What SentencePiece writes for a space."""

Steps = tuple[str, ...]

_BYTE_LEVEL: dict[tuple[Steps, bool], str] = {
    ((f"split {_GPT2}", "bytes"), False): "gpt-2",
    (("digits", f"split {_GPT2}", "bytes"), False): "smollm",
    ((f"split {_LLAMA3}", "bytes"), True): "llama-bpe",
    ((f"split {_LLAMA3}", "bytes"), False): "smaug-bpe",
    ((f"split {_QWEN2}", "bytes"), False): "qwen2",
    ((f"split {_QWEN35}", "bytes"), False): "qwen35",
}
"""(steps, ignore_merges) -> ``tokenizer.ggml.pre`` of byte-level BPE."""


@dataclass(frozen=True)
class Splitting:
    """How llama.cpp must be told to split text."""

    model: str
    """``tokenizer.ggml.model``: ``gpt2`` is byte-level BPE, ``llama`` is SentencePiece BPE with byte fallback."""
    pre: str
    """``tokenizer.ggml.pre``."""
    space_prefix: bool | None = None
    """Whether a space is put before every run of text; None where the kind of vocabulary has no such rule."""


def find_splitting(document: dict[str, Any]) -> Splitting:
    """Read a tokenizer.json's structure.

    A normaliser NFC is accepted although llama.cpp has none: composed text, which is all but all text, is the same.

    Args:
        document: the parsed tokenizer.json.

    Raises:
        CheckpointError: llama.cpp has no equal; the message shows the structure.
    """
    model = document.get("model") or {}
    if model.get("type") != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise CheckpointError("tokenizer.json", "model.type", f"is {model.get('type')!r}, only BPE is supported")
    normal = _flatten(document.get("normalizer"), "normalizers")
    steps = tuple(_step(entry) for entry in _flatten(document.get("pre_tokenizer"), "pretokenizers"))
    if model.get("byte_fallback"):
        return _sentencepiece(normal, steps)
    expanded = tuple(part for step in steps for part in step.split("\n"))
    pre = _BYTE_LEVEL.get((expanded, bool(model.get("ignore_merges"))))
    if pre is None or any(entry.get("type") != "NFC" for entry in normal):
        raise CheckpointError(
            "tokenizer.json",
            "pre_tokenizer",
            f"llama.cpp has no pre-tokeniser for normalizer {document.get('normalizer')}, "
            f"pre_tokenizer {document.get('pre_tokenizer')}, ignore_merges {bool(model.get('ignore_merges'))}",
        )
    return Splitting("gpt2", pre)


def _sentencepiece(normal: list[dict[str, Any]], steps: Steps) -> Splitting:
    kinds = [entry.get("type") for entry in normal]
    replaces = [entry for entry in normal if entry.get("type") == "Replace"]
    spaces = all(e.get("pattern") == {"String": " "} and e.get("content") == _SPACE for e in replaces)
    prefix = kinds == ["Prepend", "Replace"] and normal[0].get("prepend") == _SPACE
    known = {
        # Spaces are already replaced when the text reaches a split on spaces, so that step does nothing.
        (): prefix or kinds == ["Replace"],
        ("split on space",): kinds == ["Replace"],
    }
    if spaces and known.get(steps):
        return Splitting("llama", "default", space_prefix=prefix)
    if not normal and steps in {("metaspace always",), ("metaspace never",)}:
        return Splitting("llama", "default", space_prefix=steps[0].endswith("always"))
    raise CheckpointError(
        "tokenizer.json", "normalizer", f"llama.cpp has no equal for SentencePiece text with {kinds} and steps {steps}"
    )


def _flatten(entry: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if not entry:
        return []
    if entry.get("type") == "Sequence":
        return [part for child in entry[key] for part in _flatten(child, key)]
    return [entry]


def _step(entry: dict[str, Any]) -> str:
    """One pre-tokeniser as a word; a line break separates two steps in one entry."""
    kind = entry.get("type")
    pattern = entry.get("pattern") or {}
    if kind == "ByteLevel" and not entry.get("add_prefix_space"):
        return f"split {_GPT2}\nbytes" if entry.get("use_regex", True) else "bytes"
    if kind == "Digits" and entry.get("individual_digits"):
        return "digits"
    if kind == "Split" and "Regex" in pattern and entry.get("behavior") == "Isolated" and not entry.get("invert"):
        return f"split {pattern['Regex']}"
    if kind == "Split" and pattern == {"String": " "} and not entry.get("invert"):
        return "split on space"
    if kind == "Metaspace" and entry.get("replacement") == _SPACE and entry.get("split") is False:
        return f"metaspace {entry.get('prepend_scheme', 'always')}"
    return f"unknown {entry}"
