"""Token ids and text of the phone's code: those of the tokenizers library, on texts that are hard to cut."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from android.conftest import Core
from oracle.llama_cpp_source import needed_llama_cpp_source
from oracle.nasty_texts import nasty_texts
from oracle.real_vocabularies import BYTE_LEVEL, SENTENCEPIECE, write_sentencepiece_json, write_tokenizer_json
from tokenizers import Tokenizer

STARTER = Path(__file__).resolve().parents[2] / "edge_mllm" / "starter.edge" / "tokenizer.json"
_LIMIT = 6000
"""Ordinary tokens of a published vocabulary that are enough for every rule."""
_MARK = "▁"
_DECODERS: dict[str, Any] = {
    "llama": [
        {"type": "Replace", "pattern": {"String": _MARK}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}


def _compare(core: Core, file: Path, texts: list[str], *, special: bool = False) -> None:
    """Ids of texts and texts of ids, whole and streamed."""
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=special).ids
        reply = core.ask("ids", tokenizer=str(file), text=text, special=special)
        assert reply.get("ids") == ids, (text, reply)
    rng = random.Random(5)
    for text in texts[::9]:
        ids = [*tokenizer.encode(text, add_special_tokens=special).ids, rng.randrange(tokenizer.get_vocab_size())]
        reply = core.ask("text", tokenizer=str(file), ids=ids)
        assert reply.get("text") == tokenizer.decode(ids), (ids, reply)
        assert reply["pieces"] == _streamed(tokenizer, ids), ids


def _streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    from edge_mllm.prompt.stream_text import TextStream

    stream = TextStream(tokenizer)
    return [*(stream.push(token) for token in ids), stream.flush()]


def _specials(file: Path) -> tuple[str, ...]:
    added = [entry["content"] for entry in json.loads(file.read_text("utf-8"))["added_tokens"]]
    return tuple(added[:3] + added[-3:])


def test_ids_of_the_starter(core: Core) -> None:
    _compare(core, STARTER, nasty_texts(_specials(STARTER)))


@pytest.fixture(scope="module")
def vocabularies() -> Path:
    return needed_llama_cpp_source()


@pytest.mark.parametrize("real", BYTE_LEVEL, ids=lambda real: real.name)
def test_byte_level_vocabularies(core: Core, vocabularies: Path, real: Any, tmp_path: Path) -> None:
    write_tokenizer_json(vocabularies, real, tmp_path, limit=_LIMIT)
    file = tmp_path / "tokenizer.json"
    _compare(core, file, nasty_texts(_specials(file), count=30))


@pytest.mark.parametrize("real", SENTENCEPIECE, ids=lambda real: real.name)
def test_sentencepiece_vocabularies(core: Core, vocabularies: Path, real: Any, tmp_path: Path) -> None:
    """With the published decoder, so that streamed text is tried too."""
    write_sentencepiece_json(vocabularies, real, tmp_path, limit=_LIMIT)
    file = tmp_path / "tokenizer.json"
    document = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps(document | {"decoder": {"type": "Sequence", "decoders": _DECODERS["llama"]}}), "utf-8")
    _compare(core, file, nasty_texts(_specials(file), count=30))


def _changed(tmp_path: Path, **changes: Any) -> Path:
    """The starter's tokenizer with other steps."""
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(json.loads(STARTER.read_text("utf-8")) | changes), "utf-8")
    return file


def _split(pattern: dict[str, str], behavior: str, *, invert: bool = False) -> dict[str, Any]:
    split = {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}
    plain = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [split, plain]}


_PATTERNS = (
    {"String": " "},
    {"Regex": r"\s+"},
    {"Regex": r"[^\r\n\p{L}\p{N}]?\p{Lu}*\p{Ll}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+(?!\S)|\s+"},
    {"Regex": r"(?i:'s|'t|'re)?\w+?\d|[a-fx\-z]+|\S"},
    {"Regex": r"[\p{L}\p{M}]++(?:'s)?|(?=\d)\d{2,}|[^\P{L}a-z]{1,2}?|\u03b1|."},
)


@pytest.mark.parametrize("behavior", ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"])
def test_every_way_of_splitting(core: Core, behavior: str, tmp_path: Path) -> None:
    for number, pattern in enumerate(_PATTERNS):
        for invert in (False, True):
            folder = tmp_path / f"{number}-{invert}"
            folder.mkdir()
            file = _changed(folder, pre_tokenizer=_split(pattern, behavior, invert=invert))
            _compare(core, file, nasty_texts(count=8, seed=number)[::2])


def test_normalizers_and_tokens_with_rules(core: Core, tmp_path: Path) -> None:
    """Unicode forms, replaced and prepended text; added tokens that are normalised, take spaces or stand alone."""
    added = json.loads(STARTER.read_text("utf-8"))["added_tokens"]
    rules: list[dict[str, Any]] = [
        {},
        {"lstrip": True},
        {"rstrip": True},
        {"lstrip": True, "rstrip": True},
        {"single_word": True},
        {"normalized": True, "special": False},
    ]
    names = [entry["content"] for entry in added[: len(rules)]]
    changed = [entry | rule for entry, rule in zip(added, rules, strict=False)] + added[len(rules) :]
    texts = nasty_texts(tuple(names), count=20)
    texts += [f"a {name}  {name} b{name}c \n{name}" for name in names]
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        folder = tmp_path / form
        folder.mkdir()
        replace = {"type": "Replace", "pattern": {"Regex": r"\d+"}, "content": "7"}
        steps = [{"type": form}, replace, {"type": "Prepend", "prepend": "x"}]
        file = _changed(folder, normalizer={"type": "Sequence", "normalizers": steps}, added_tokens=changed)
        _compare(core, file, texts)


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_metaspace(core: Core, scheme: str, tmp_path: Path) -> None:
    step = {"type": "Metaspace", "replacement": "Ġ", "prepend_scheme": scheme, "split": scheme != "never"}
    decoder = {"type": "Metaspace", "replacement": "Ġ", "prepend_scheme": scheme, "split": True}
    file = _changed(tmp_path, pre_tokenizer=step, decoder=decoder)
    _compare(core, file, nasty_texts(_specials(file), count=20))


def test_special_tokens_round_a_text(core: Core, tmp_path: Path) -> None:
    first, last = (entry["content"] for entry in json.loads(STARTER.read_text("utf-8"))["added_tokens"][:2])
    template = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": first, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": last, "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            first: {"id": first, "ids": [0], "tokens": [first]},
            last: {"id": last, "ids": [1], "tokens": [last]},
        },
    }
    _compare(core, _changed(tmp_path, post_processor=template), ["", "one text", "two\nlines"], special=True)


def test_what_is_not_known_is_refused(core: Core, tmp_path: Path) -> None:
    """One clear line, never other ids."""
    model = json.loads(STARTER.read_text("utf-8"))["model"]
    changes: dict[str, dict[str, Any]] = {
        "normalizer.type": {"normalizer": {"type": "BertNormalizer"}},
        "pre_tokenizer.type": {"pre_tokenizer": {"type": "UnicodeScripts"}},
        "(?<=a)b": {"pre_tokenizer": _split({"Regex": "(?<=a)b"}, "Isolated")},
        "(ab)+": {"pre_tokenizer": _split({"Regex": "(ab)+"}, "Isolated")},
        r"\p{Han}": {"pre_tokenizer": _split({"Regex": r"\p{Han}"}, "Isolated")},
        "model.type": {"model": model | {"type": "Unigram"}},
        "model.dropout": {"model": model | {"dropout": 0.5}},
        "model.merges": {"model": model | {"merges": [["no", "such"]]}},
        "decoder.type": {"decoder": {"type": "CTC"}},
        "post_processor.type": {"post_processor": {"type": "BertProcessing"}},
        "model.vocab: expected an object": {"model": {"type": "BPE", "vocab": 3, "merges": []}},
    }
    for number, (named, change) in enumerate(changes.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        error = core.ask("ids", tokenizer=str(_changed(folder, **change)), text="x")["error"]
        assert error.startswith("the tokenizer") and named in error and "\n" not in error, error


def test_half_a_character_is_refused(core: Core) -> None:
    error = core.ask("ids", tokenizer=str(STARTER), text="half \ud83d")["error"]
    assert error == "the text has characters that are not Unicode (a lone surrogate)"


@pytest.mark.slow
def test_the_table_of_characters_is_fresh() -> None:
    """Made from the tokenizers library that is installed."""
    import runpy

    made = runpy.run_path(str(Path(__file__).resolve().parents[2] / "android_demo" / "tools" / "unicode_table.py"))
    assert made["TARGET"].read_text("utf-8") == made["java"](made["categories"]())
