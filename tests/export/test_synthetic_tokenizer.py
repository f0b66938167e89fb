"""The made-up tokenizer: exact size, every byte, the real pre-tokeniser."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_mllm_export.shapes import TokenizerPlan, build_tokenizer, load_shape

SMOLVLM = load_shape("smolvlm-256m").tokenizer
MARKERS = tuple(name for name in SMOLVLM.added if "reserved" not in name)


def tokenizer_plan(base: int) -> TokenizerPlan:
    return replace(SMOLVLM, base_size=base, added=MARKERS)


TOKENIZER = build_tokenizer(tokenizer_plan(2000))


@pytest.mark.parametrize("base", [273, 274, 500, 49_152])
def test_the_size_is_exact(base: int) -> None:
    tokenizer = build_tokenizer(tokenizer_plan(base))
    assert tokenizer.get_vocab_size() == base + len(MARKERS)
    assert sorted(tokenizer.get_vocab().values()) == list(range(base + len(MARKERS)))


@pytest.mark.parametrize("base", [272, 10_000_000])
def test_sizes_that_cannot_be(base: int) -> None:
    with pytest.raises(ValueError, match=f"a vocabulary of {base} entries cannot be made"):
        build_tokenizer(tokenizer_plan(base))


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_every_text_comes_back(text: str) -> None:
    ids = TOKENIZER.encode(text).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


def test_every_merge_can_happen() -> None:
    for text in ("the", " in", "\n\n", "    ", "tion"):
        assert len(TOKENIZER.encode(text).ids) < len(text)


def test_digits_stay_single_and_markers_whole() -> None:
    assert TOKENIZER.encode("2026 a").tokens[:4] == ["2", "0", "2", "6"]
    for marker in (*MARKERS, *SMOLVLM.special.values()):
        assert TOKENIZER.encode(f"a{marker}b").tokens == ["a", marker, "b"]
