import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from edge_mllm.errors import SettingError
from edge_mllm.prompt.stream_text import StopStrings, TextStream

TEXTS = [
    "plain words",
    "naïve café",
    "日本語のテキスト",
    "👩‍👩‍👧‍👦 family 🇯🇵",
    "a\u0301 combining",
    "tab\tand\n\nlines  ",
    "\U0001d518\U0001d52b",
]


@pytest.fixture(scope="module")
def byte_tokenizer() -> Tokenizer:
    """One token a byte, and one special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    return tokenizer


@pytest.fixture(scope="module")
def space_tokenizer() -> Tokenizer:
    """SentencePiece-like: words carry their leading space, unknown characters are bytes."""
    vocab = {
        "<unk>": 0,
        "▁Hello": 1,
        "▁world": 2,
        "▁": 3,
        "!": 4,
        **{f"<0x{byte:02X}>": 5 + byte for byte in range(256)},
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def pieces_of(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = TextStream(tokenizer)
    return [*(stream.push(token) for token in ids), stream.flush()]


@pytest.mark.parametrize("text", TEXTS)
def test_whole_text_arrives_and_no_half_character(byte_tokenizer, text):
    pieces = pieces_of(byte_tokenizer, byte_tokenizer.encode(text).ids)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_character_comes_with_its_last_byte(byte_tokenizer):
    pieces = pieces_of(byte_tokenizer, byte_tokenizer.encode("a👍b").ids)
    assert pieces == ["a", "", "", "", "👍", "b", ""]


def test_special_tokens_are_skipped(byte_tokenizer):
    end = byte_tokenizer.token_to_id("<end>")
    ids = [*byte_tokenizer.encode("ab").ids, end, *byte_tokenizer.encode("é").ids, end]
    assert "".join(pieces_of(byte_tokenizer, ids)) == "abé"


def test_broken_bytes_are_flushed_as_replacement(byte_tokenizer):
    ids = byte_tokenizer.encode("ok👍").ids[:-1]
    pieces = pieces_of(byte_tokenizer, ids)
    assert "".join(pieces[:-1]) == "ok"
    assert "\ufffd" in pieces[-1]


def test_endless_broken_bytes_are_not_held_back_for_ever(byte_tokenizer):
    byte = byte_tokenizer.encode("👍").ids[0]
    stream = TextStream(byte_tokenizer)
    shown = [stream.push(byte) for _ in range(50)]
    assert len("".join(shown)) >= 40
    assert stream.push(byte_tokenizer.encode("a").ids[0]).endswith("a")


def test_leading_space_of_words_survives(space_tokenizer):
    assert pieces_of(space_tokenizer, [1, 2, 4]) == ["Hello", " world", "!", ""]
    emoji = [5 + byte for byte in "🙂".encode()]
    assert pieces_of(space_tokenizer, [1, 3, *emoji, 2]) == ["Hello", " ", "", "", "", "🙂", " world", ""]


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=40))
def test_any_text(text):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    assert "".join(pieces_of(tokenizer, tokenizer.encode(text).ids)) == text


def run_stops(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    matcher, shown = StopStrings(stops), ""
    for piece in pieces:
        text, hit = matcher.push(piece)
        shown += text
        if hit:
            return shown, True
    return shown + matcher.flush(), False


@pytest.mark.parametrize(
    ("stops", "pieces", "expected"),
    [
        (["END"], ["abc", "E", "N", "D", "x"], ("abc", True)),
        (["END"], ["abcENDdef"], ("abc", True)),
        (["END"], ["abcEN", "xEND"], ("abcENx", True)),
        (["END"], ["abcEN"], ("abcEN", False)),
        (["\n\n"], ["a\n", "b\n", "\nc"], ("a\nb", True)),
        (["aab"], ["a", "a", "a", "b"], ("a", True)),
        (["xyz", "y"], ["ax", "yz"], ("a", True)),
        ([], ["a", "b"], ("ab", False)),
    ],
)
def test_stop_strings(stops, pieces, expected):
    assert run_stops(stops, pieces) == expected


@settings(max_examples=200, deadline=None)
@given(text=st.text("abc", max_size=30), stop=st.text("abc", min_size=1, max_size=4), cuts=st.lists(st.integers(0, 30)))
def test_stop_strings_however_the_text_is_cut(text, stop, cuts):
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(borders)]
    shown, hit = run_stops([stop], pieces)
    assert hit == (stop in text)
    assert shown == (text[: text.find(stop)] if hit else text)


def test_empty_stop_string_is_refused():
    with pytest.raises(SettingError, match="empty"):
        StopStrings(["a", ""])
