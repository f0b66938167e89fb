"""A tokenizer of true size without anybody's vocabulary, for checkpoints of random weights.

Special tokens, their ids and the pre-tokeniser are the family's own, because prompt layout and engines depend on
them. The merges are made up: letter pairs and triples in the order of English letter frequency, until the vocabulary
has exactly the size asked for. Every byte is a token, so every text can be encoded and comes back unchanged.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LETTERS = "etaoinshrdlcumwfgypbvkjxqz"
_SPACE, _NEWLINE = "\u0120", "\u010a"  # how the byte-level alphabet writes " " and "\n"

SMOLLM_PRE_TOKENIZER: dict[str, Any] = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
"""The pre-tokeniser of the SmolLM tokenizers: single digits, then GPT-2's regular expression on bytes."""

_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2_PRE_TOKENIZER: dict[str, Any] = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": _QWEN2_SPLIT}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
    ],
}
"""The pre-tokeniser of the Qwen2, Qwen2.5 and Qwen3 tokenizers."""


@dataclass(frozen=True, kw_only=True)
class TokenizerPlan:
    """What a synthetic tokenizer must look like."""

    base_size: int
    """Entries of the BPE vocabulary, the ``first`` tokens included."""
    first: tuple[str, ...]
    """Special tokens with the ids 0, 1, ..."""
    added: tuple[str, ...] = ()
    """Special tokens with the ids base_size, base_size + 1, ..."""
    pre_tokenizer: dict[str, Any]
    """The ``pre_tokenizer`` entry of tokenizer.json."""
    inside: Mapping[int, str] = field(default_factory=dict)
    """Further special tokens by id, among the BPE vocabulary."""
    byte_fallback: bool = False
    """SentencePiece's kind of BPE: characters, with "\u2581" for a space, and byte tokens for all others."""

    @property
    def size(self) -> int:
        """Number of token ids."""
        return self.base_size + len(self.added)


def _merges() -> Iterator[tuple[str, str]]:
    """Pairs whose two sides exist by the time they come; about 900,000 of them, no result twice."""
    yield (_NEWLINE, _NEWLINE)  # libmtmd wants "\n\n" as one token
    for spaces in (1, 2, 4):
        yield (_SPACE * spaces, _SPACE * spaces)
    pairs = [a + b for a, b in itertools.product(_LETTERS, repeat=2)]
    yield from ((_SPACE, letter) for letter in _LETTERS)
    yield from itertools.product(_LETTERS, repeat=2)
    yield from itertools.product([_SPACE + letter for letter in _LETTERS], _LETTERS)
    yield from itertools.product(pairs, _LETTERS)
    yield from itertools.product([_SPACE + letter for letter in _LETTERS], pairs)
    yield from itertools.product(pairs, pairs)
    yield from itertools.product([_SPACE + pair for pair in pairs], pairs)


def build_tokenizer(plan: TokenizerPlan) -> Tokenizer:
    """Make the tokenizer.

    Args:
        plan: Size, special tokens and pre-tokeniser.

    Returns:
        A BPE tokenizer with exactly ``plan.size`` ids.

    Raises:
        ValueError: ``base_size`` is too small for the bytes or larger than the supply of merges.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    if plan.byte_fallback:
        from edge_mllm_export.synthetic_sentencepiece import build_sentencepiece

        return build_sentencepiece(plan, _merges())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*plan.first, *alphabet]
    count = plan.base_size - len(names)
    merges = list(itertools.islice(_merges(), max(count, 0)))
    if count < 0 or len(merges) != count:
        raise ValueError(f"a vocabulary of {plan.base_size} entries cannot be made")
    names += [left + right for left, right in merges]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in plan.first + plan.added])
    # Tokenizer's Python side has no constructor for a pre-tokeniser from JSON, so the JSON of the whole is edited.
    return Tokenizer.from_str(_with_pre_tokenizer(tokenizer.to_str(), plan.pre_tokenizer))


def _with_pre_tokenizer(text: str, pre_tokenizer: dict[str, Any]) -> str:
    document = json.loads(text)
    document["pre_tokenizer"] = pre_tokenizer
    return json.dumps(document, ensure_ascii=False)


def write_tokenizer(directory: Path, plan: TokenizerPlan, settings: dict[str, Any]) -> Tokenizer:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json and return the tokenizer.

    Args:
        directory: Where to write; must exist.
        plan: What to make.
        settings: Content of tokenizer_config.json, without ``added_tokens_decoder``.
    """
    tokenizer = build_tokenizer(plan)
    tokenizer.save(str(directory / "tokenizer.json"))
    fields = ("content", "special", "normalized", "lstrip", "rstrip", "single_word")
    added = {
        str(id_): {field: getattr(token, field) for field in fields}
        for id_, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    names = {key: value for key, value in settings.items() if key.endswith(("_token", "special_tokens"))}
    for file, document in (
        ("tokenizer_config.json", {**settings, "added_tokens_decoder": added}),
        ("special_tokens_map.json", names),
    ):
        (directory / file).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return tokenizer
