"""Real vocabularies from llama.cpp's sources, put back into the tokenizer.json form they came from.

llama.cpp ships the vocabularies of published models as GGUF files, each with texts and the ids that the model's own
tokenizer gave for them. Tokens, types and merges are in the file; the pre-tokeniser is the published one of that model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oracle.gguf_metadata import read_metadata

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
"""GGUF's types of tokens."""
_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_PLAIN_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


def _split(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _PLAIN_BYTES]}


def _contractions(letters: str, numbers: str, other: str) -> str:
    return (
        rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?{letters}|{numbers}| ?{other}[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )


@dataclass(frozen=True)
class RealVocabulary:
    """One published tokenizer."""

    name: str
    pre: str
    """What our derivation must find."""
    pre_tokenizer: dict[str, Any] | None
    ignore_merges: bool = False
    normalizer: dict[str, Any] | None = None


BYTE_LEVEL = (
    RealVocabulary("gpt-2", "gpt-2", _GPT2),
    RealVocabulary(
        "starcoder",
        "smollm",
        {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _GPT2]},
    ),
    RealVocabulary(
        "qwen2",
        "qwen2",
        _split(_contractions(r"\p{L}+", r"\p{N}", r"[^\s\p{L}\p{N}]+")),
        normalizer={"type": "NFC"},
    ),
    RealVocabulary(
        "qwen35",
        "qwen35",
        _split(_contractions(r"[\p{L}\p{M}]+", r"\p{N}", r"[^\s\p{L}\p{M}\p{N}]+")),
    ),
    RealVocabulary(
        "llama-bpe",
        "llama-bpe",
        _split(_contractions(r"\p{L}+", r"\p{N}{1,3}", r"[^\s\p{L}\p{N}]+")),
        ignore_merges=True,
    ),
)


_MARK = "\N{LOWER ONE EIGHTH BLOCK}"
_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": _MARK}
_PREFIXED = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": _MARK}, _SPACES]}
_ON_SPACES = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}

SENTENCEPIECE = (
    RealVocabulary("llama-spm", "default", None, normalizer=_PREFIXED),
    RealVocabulary("phi-3", "default", None, normalizer=_PREFIXED),
    RealVocabulary("gemma-4", "default", _ON_SPACES, normalizer=_SPACES),
)
"""SentencePiece BPE with byte fallback; Gemma 3 splits text as Gemma 4 does."""


def write_sentencepiece_json(source: Path, real: RealVocabulary, directory: Path, limit: int | None = None) -> int:
    """The same as write_tokenizer_json for a SentencePiece vocabulary."""
    metadata = read_metadata(source / "models" / f"ggml-vocab-{real.name}.gguf")
    listed = list(zip(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"], strict=True))
    # Single characters stand at the end of such a vocabulary.
    kept = [entry for i, entry in enumerate(listed) if limit is None or i < limit or len(entry[0]) == 1]
    tokens, kinds = zip(*kept, strict=True)
    vocabulary = {text: i for i, text in enumerate(tokens)}
    lines = metadata.get("tokenizer.ggml.merges")
    if lines is None:
        ordinary = {text for text, kind in zip(tokens, kinds, strict=True) if kind == _NORMAL}
        merges = _merges_from_scores(ordinary, dict(zip(tokens, metadata["tokenizer.ggml.scores"], strict=False)))
    else:
        merges = [
            pair for pair in (line.split(" ", 1) for line in lines) if {*pair, "".join(pair)} <= vocabulary.keys()
        ]
    added = [
        {"id": i, "content": text, "special": kind != _USER_DEFINED, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for i, (text, kind) in enumerate(zip(tokens, kinds, strict=True))
        if text == "<unk>" or kind in (_CONTROL, _USER_DEFINED)
    ]
    model = {
        "type": "BPE",
        "vocab": vocabulary,
        "merges": merges,
        "byte_fallback": True,
        "fuse_unk": True,
        "unk_token": "<unk>",
    }
    document = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": real.normalizer,
        "pre_tokenizer": real.pre_tokenizer,
        "post_processor": None,
        "decoder": None,
        "model": model,
    }
    (directory / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return len(tokens)


def _merges_from_scores(ordinary: set[str], scores: dict[str, float]) -> list[tuple[str, str]]:
    """All splits of every token into two tokens, best score first.

    This is how transformers turns a SentencePiece model into a merge list (convert_slow_tokenizer.py,
    generate_merges).
    """
    ranked = []
    for order, text in enumerate(sorted(ordinary, key=lambda text: -scores[text])):
        splits = [(text[:i], text[i:]) for i in range(1, len(text))]
        ranked += [(-scores[text], order, pair) for pair in splits if pair[0] in ordinary and pair[1] in ordinary]
    return [pair for _, _, pair in sorted(ranked, key=lambda entry: entry[:2])]


def write_tokenizer_json(source: Path, real: RealVocabulary, directory: Path, limit: int | None = None) -> int:
    """Write tokenizer.json for one of the vocabularies.

    Args:
        source: llama.cpp's folder.
        real: which one.
        directory: where to.
        limit: only the first so many ordinary tokens; these vocabularies list tokens in the order of their merges, so
            the first ones are a tokenizer of their own.

    Returns:
        The number of ids.
    """
    metadata = read_metadata(source / "models" / f"ggml-vocab-{real.name}.gguf")
    kinds = metadata["tokenizer.ggml.token_type"]
    listed = [(text, kind) for text, kind in zip(metadata["tokenizer.ggml.tokens"], kinds, strict=True)]
    kept = [(text, kind) for i, (text, kind) in enumerate(listed) if limit is None or i < limit or kind == _CONTROL]
    vocabulary = {text: i for i, (text, _) in enumerate(kept) if not text.startswith("[PAD")}
    merges = [pair.split(" ", 1) for pair in metadata["tokenizer.ggml.merges"]]
    added = [
        {"id": vocabulary[text], "content": text, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for text, kind in kept
        if kind == _CONTROL
    ]
    model = {
        "type": "BPE",
        "vocab": vocabulary,
        "merges": [pair for pair in merges if {*pair, "".join(pair)} <= vocabulary.keys()],
        "ignore_merges": real.ignore_merges,
    }
    document = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": real.normalizer,
        "pre_tokenizer": real.pre_tokenizer,
        "post_processor": None,
        "decoder": _PLAIN_BYTES,
        "model": model,
    }
    (directory / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return len(kept)


def expected_ids(source: Path, name: str) -> list[tuple[str, list[int]]]:
    """Texts with the ids of the model's own tokenizer."""
    base = source / "models" / f"ggml-vocab-{name}.gguf"
    texts = base.with_suffix(".gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = base.with_suffix(".gguf.out").read_text(encoding="utf-8").splitlines()
    return list(zip(texts, ([int(part) for part in line.split()] for line in lines), strict=False))
