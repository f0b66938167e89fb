"""A tokenizer of true size without anybody's vocabulary, for checkpoints of random weights.

Special tokens, their ids and the pre-tokeniser are the family's own, because prompt layout and engines depend on
them. The merges are made up: letter pairs and triples in the order of English letter frequency, until the vocabulary
has exactly the size asked for. Every byte is a token, so every text can be encoded and comes back unchanged.
"""

from __future__ import annotations

import itertools
import json
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm_export.json_files import write_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LETTERS = "etaoinshrdlcumwfgypbvkjxqz"
_SPACE, _NEWLINE = "\u0120", "\u010a"  # how the byte-level alphabet writes " " and "\n"
_MARK = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece writes " "
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


@dataclass(frozen=True, kw_only=True)
class TokenizerPlan:
    """What a synthetic tokenizer must look like."""

    base_size: int
    """Entries of the BPE vocabulary, the ``special`` tokens included."""
    special: Mapping[int, str] = field(default_factory=dict)
    """Special tokens by id, among the BPE vocabulary."""
    added: tuple[str, ...] = ()
    """Special tokens with the ids base_size, base_size + 1, ..."""
    document: dict[str, Any]
    """tokenizer.json without added tokens, vocabulary and merges.

    Where its model has ``byte_fallback``, the tokenizer is of SentencePiece's kind: characters, with "\u2581" for a
    space, and byte tokens for all others. Otherwise it works on GPT-2's byte-level alphabet.
    """

    @property
    def size(self) -> int:
        """Number of token ids."""
        return self.base_size + len(self.added)


def build_tokenizer(plan: TokenizerPlan) -> Tokenizer:
    """Make the tokenizer: a BPE with exactly ``plan.size`` ids, special tokens, alphabet and results of merges.

    Raises:
        ValueError: ``base_size`` is too small for the alphabet or larger than the supply of merges.
    """
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import ByteLevel

    if plan.document["model"]["byte_fallback"]:
        alphabet, pairs = _sentencepiece_alphabet(), _sentencepiece_merges()
    else:
        alphabet, pairs = sorted(ByteLevel.alphabet()), _merges()
    free = [number for number in range(plan.base_size) if number not in plan.special]
    merges = list(itertools.islice(pairs, max(len(free) - len(alphabet), 0)))
    texts = [*alphabet, *(left + right for left, right in merges)]
    names = {**plan.special, **dict(zip(free, texts, strict=False))}
    vocabulary = {text: number for number, text in sorted(names.items())}
    if len(texts) != len(free) or len(vocabulary) != plan.base_size:
        raise ValueError(f"a vocabulary of {plan.base_size} entries cannot be made")
    special = {**plan.special, **dict(enumerate(plan.added, plan.base_size))}
    flags = dict.fromkeys(_FLAGS, False)
    document = plan.document | {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": text, "special": True, **flags} for number, text in sorted(special.items())
        ],
        "model": plan.document["model"] | {"vocab": vocabulary, "merges": merges},
    }
    return Tokenizer.from_str(json.dumps(document, ensure_ascii=False))


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


def _sentencepiece_alphabet() -> list[str]:
    characters = (_MARK, "\n", *string.digits, *string.punctuation, *string.ascii_letters)
    return [*(f"<0x{byte:02X}>" for byte in range(256)), *characters]


def _sentencepiece_merges() -> Iterator[tuple[str, str]]:
    for left, right in _merges():
        if _NEWLINE not in left:
            yield left.replace(_SPACE, _MARK), right.replace(_SPACE, _MARK)


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
        write_json(directory / file, document)
    return tokenizer
