"""tokenizer.model files: ids as the sentencepiece library gives them, and refusals."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tiny_internlm2 import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Piece, pieces, write_model
from tokenizers import Tokenizer

from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.tokenizer.sentencepiece import convert_sentencepiece, read_sentencepiece

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "sentencepiece.json"
BARE = {"add_bos_token": False}


@pytest.mark.parametrize("number", [0, 1], ids=["user-defined pieces", "space prefix"])
def test_ids_are_those_of_the_library(tmp_path: Path, number: int) -> None:
    """Vocabularies that the library trained itself, with its own ids of the nasty texts."""
    entry = json.loads(GOLDEN.read_text(encoding="utf-8"))["entries"][number]
    path = tmp_path / "tokenizer.model"
    path.write_bytes(base64.b64decode(entry["model"]))
    assert read_sentencepiece(path).normalizer_spec.add_dummy_prefix == entry["prefix"]
    tokenizer = Tokenizer.from_str(json.dumps(convert_sentencepiece(path, BARE)))
    assert len(entry["texts"]) > 100
    wrong = [row["text"] for row in entry["texts"] if tokenizer.encode(row["text"]).ids != row["ids"]]
    assert wrong == []
    for row in entry["texts"]:
        assert tokenizer.decode(row["ids"], skip_special_tokens=False) == row["text"]


def test_pieces_are_read_as_written(tmp_path: Path) -> None:
    model = read_sentencepiece(write_model(tmp_path / "tokenizer.model", pieces(), charsmap=b"ab", prefix=True))
    assert [(piece.piece, piece.score, piece.type) for piece in model.pieces] == pieces()
    normalizer, trainer = model.normalizer_spec, model.trainer_spec
    assert (trainer.model_type, normalizer.precompiled_charsmap, normalizer.add_dummy_prefix) == (2, b"ab", True)
    assert (normalizer.remove_extra_whitespaces, normalizer.escape_whitespaces) == (False, True)
    assert not trainer.treat_whitespace_as_suffix
    piece = model.pieces[0]
    kinds = [piece.NORMAL, piece.UNKNOWN, piece.CONTROL, piece.USER_DEFINED, piece.UNUSED, piece.BYTE]
    assert kinds == [NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE]


@pytest.mark.parametrize(("begin", "end"), [(True, False), (False, True), (True, True), (False, False)])
def test_begin_and_end_tokens(tmp_path: Path, begin: bool, end: bool) -> None:
    path = write_model(tmp_path / "tokenizer.model", pieces())
    settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": begin, "add_eos_token": end}
    tokenizer = Tokenizer.from_str(json.dumps(convert_sentencepiece(path, settings)))
    bare = tokenizer.encode("the end", add_special_tokens=False).ids
    assert tokenizer.encode("the end").ids == [1] * begin + bare + [2] * end
    assert bare and not {1, 2} & set(bare)


USER = [("<x>", 0.0, USER_DEFINED)]


@pytest.mark.parametrize(
    ("listed", "options", "says"),
    [
        (pieces(), {"algorithm": 1}, r"trainer_spec\.model_type: is 1"),
        (pieces(), {"charsmap": b"x"}, r"normalizer_spec\.precompiled_charsmap"),
        (pieces(), {"extra_spaces": True}, r"normalizer_spec\.remove_extra_whitespaces"),
        (pieces(), {"escape": False}, r"normalizer_spec\.escape_whitespaces"),
        (pieces(), {"prefix": True}, r"normalizer_spec\.add_dummy_prefix"),
        ([piece for piece in pieces() if piece[2] != BYTE], {}, r"trainer_spec\.byte_fallback: gives 0"),
        (pieces()[1:], {}, "pieces: has 0 unknown"),
        ([*pieces(), ("th", -3.0, NORMAL)], {}, "pieces: 'th' is there twice"),
        ([*pieces(), ("the", -3.0, UNUSED), ("then", -4.0, NORMAL)], {}, "pieces: 'then' is made of a piece"),
    ],
)
def test_what_cannot_be_exact_is_refused(
    tmp_path: Path, listed: list[Piece], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(CheckpointError, match=says):
        convert_sentencepiece(write_model(tmp_path / "tokenizer.model", listed, **options), BARE)


@pytest.mark.parametrize(
    "data", [b"", b"\x0a", b"\x0a\x05abc", b"\xff" * 20, b"\x08\x01", b"\x0a\x02\x0a\xff", b"\x0b\x00", b"{}" * 40]
)
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"tokenizer\.model': is no SentencePiece model") as caught:
        convert_sentencepiece(path, BARE)
    assert "\n" not in str(caught.value)


def test_a_cut_off_file_is_one_clear_error(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tokenizer.model", pieces())
    whole = path.read_bytes()
    for length in range(1, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            convert_sentencepiece(path, BARE)
    path.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        convert_sentencepiece(path, BARE)
