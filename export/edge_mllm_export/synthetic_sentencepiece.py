"""A synthetic tokenizer of SentencePiece's kind: BPE on characters, and a token for every byte of all others."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from edge_mllm_export.synthetic_tokenizer import TokenizerPlan

_MARK = "\N{LOWER ONE EIGHTH BLOCK}"
_BYTE_LEVEL_SPACE, _BYTE_LEVEL_NEWLINE = "\u0120", "\u010a"
_ON_SPACES = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": _MARK}
SENTENCEPIECE_PRE_TOKENIZER: dict[str, Any] = _ON_SPACES
"""The pre-tokeniser of the Gemma tokenizers. Spaces are replaced before it sees them, so it splits nothing."""


def build_sentencepiece(plan: TokenizerPlan, merges: Iterator[tuple[str, str]]) -> Tokenizer:
    """Make the tokenizer: special tokens, bytes, characters, then the results of merges.

    Args:
        plan: Size, special tokens and pre-tokeniser; its ``first`` tokens must hold ``<unk>`` and ``<bos>``.
        merges: Pairs of the byte-level alphabet; those on spaces and letters are taken.

    Raises:
        ValueError: ``base_size`` is too small or larger than the supply of merges.
    """
    from tokenizers import Tokenizer

    names = dict(enumerate(plan.first)) | dict(plan.inside)
    free = (number for number in range(plan.base_size) if number not in names)
    for text in (*(f"<0x{byte:02X}>" for byte in range(256)), _MARK, "\n", *string.digits, *string.punctuation):
        names[_next(free, plan)] = text
    for letter in string.ascii_letters:
        names[_next(free, plan)] = letter
    chosen: list[tuple[str, str]] = []
    for number in free:
        left, right = _translated(next(pair for pair in merges if _BYTE_LEVEL_NEWLINE not in "".join(pair)))
        names[number] = left + right
        chosen.append((left, right))
    vocabulary = {names[number]: number for number in range(plan.base_size)}
    if len(vocabulary) != plan.base_size:
        raise ValueError(f"a vocabulary of {plan.base_size} entries cannot be made")
    return Tokenizer.from_str(json.dumps(_document(plan, vocabulary, chosen), ensure_ascii=False))


def _next(free: Iterator[int], plan: TokenizerPlan) -> int:
    number = next(free, None)
    if number is None:
        raise ValueError(f"a vocabulary of {plan.base_size} entries cannot be made")
    return number


def _translated(pair: tuple[str, str]) -> tuple[str, str]:
    left, right = (part.replace(_BYTE_LEVEL_SPACE, _MARK) for part in pair)
    return left, right


def _document(plan: TokenizerPlan, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> dict[str, Any]:
    special = dict(enumerate(plan.first)) | dict(plan.inside)
    special |= {plan.base_size + place: text for place, text in enumerate(plan.added)}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    begin, again = ({"SpecialToken": {"id": "<bos>", "type_id": number}} for number in (0, 1))
    first, second = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": id_, "content": text, "special": True, **flags} for id_, text in sorted(special.items())
        ],
        "normalizer": _SPACES,
        "pre_tokenizer": plan.pre_tokenizer,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, first],
            "pair": [begin, first, again, second],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [vocabulary["<bos>"]], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _MARK}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": merges,
        },
    }
