"""Vocabularies in GGUF files: what llama.cpp makes of a text is what tokenizer.json makes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from oracle.gguf_metadata import read_metadata
from oracle.llama_cpp_source import needed_llama_cpp_source
from oracle.llama_vocab import LlamaVocab
from oracle.nasty_texts import nasty_texts
from oracle.real_vocabularies import (
    BYTE_LEVEL,
    SENTENCEPIECE,
    RealVocabulary,
    expected_ids,
    write_sentencepiece_json,
    write_tokenizer_json,
)
from tokenizers import Tokenizer

from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.gguf.file import write_gguf
from edge_mllm_export.tokenizer.gguf_vocabulary import Vocabulary, read_vocabulary

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5


@pytest.fixture(scope="module")
def source() -> Path:
    return needed_llama_cpp_source()


def write_vocabulary(vocabulary: Vocabulary, path: Path) -> Path:
    write_gguf(path, "llama", vocabulary.add_to, [])
    return path


def differing_texts(tokenizer: Tokenizer, path: Path, texts: list[str]) -> list[str]:
    with LlamaVocab(path) as vocabulary:
        return [t for t in texts if tokenizer.encode(t, add_special_tokens=False).ids != vocabulary.encode(t)]


def texts_for(tokenizer: Tokenizer) -> list[str]:
    """The corpus with the tokenizer's own special tokens inside.

    llama.cpp takes the text "</s>" for a special token even where it is an ordinary entry of the vocabulary
    (src/llama-vocab.cpp, special_eog_ids), so it is left out there.
    """
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    texts = nasty_texts(tuple(added[:3] + added[-3:]))
    ordinary = tokenizer.token_to_id("</s>") is not None and "</s>" not in added
    return [text.replace("</s>", "</ s>") for text in texts] if ordinary else texts


def test_tiny_tokenizer_splits_as_in_tokenizer_json(tiny_smolvlm: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_smolvlm / "tokenizer.json"))
    path = write_vocabulary(read_vocabulary(tiny_smolvlm, tokenizer.get_vocab_size()), tmp_path / "v.gguf")
    texts = texts_for(tokenizer)
    assert len(texts) > 300
    assert differing_texts(tokenizer, path, texts) == []


def test_starter_tokenizer_splits_as_in_tokenizer_json(tmp_path: Path) -> None:
    directory = Path(__file__).resolve().parents[2] / "starter" / "checkpoint"
    if not (directory / "tokenizer.json").is_file():
        pytest.skip("starter/checkpoint is not there")
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    path = write_vocabulary(read_vocabulary(directory, tokenizer.get_vocab_size()), tmp_path / "v.gguf")
    assert differing_texts(tokenizer, path, texts_for(tokenizer)) == []
    with LlamaVocab(path) as vocabulary:
        for text in ("\n", "\n\n", "<fake_token_around_image>", "<global-img>", "<image>", "<row_1_col_1>"):
            assert len(vocabulary.encode(text)) == 1, text


def test_special_tokens_and_padding(tiny_smolvlm: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_smolvlm / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    vocabulary = read_vocabulary(tiny_smolvlm, size + 5)
    assert vocabulary.tokens[size:] == tuple(f"[PAD{size + i}]" for i in range(5))
    assert vocabulary.types[size:] == (UNUSED,) * 5
    image = tokenizer.token_to_id("<image>")
    assert vocabulary.tokens[image] == "<image>" and vocabulary.types[image] == CONTROL
    assert vocabulary.types[tokenizer.token_to_id("e")] == NORMAL
    with LlamaVocab(write_vocabulary(vocabulary, tmp_path / "v.gguf")) as llama:
        end = tokenizer.token_to_id("<end_of_utterance>")
        assert llama.special["eos"] == end and llama.ends(end)
        assert llama.special["bos"] == tokenizer.token_to_id("<|im_start|>")
        assert llama.special["pad"] == tokenizer.token_to_id("<|im_end|>")
        assert llama.encode("a", add_special=True) == tokenizer.encode("a").ids
        assert llama.encode("<image>", parse_special=False) != [image]
        assert llama.piece(tokenizer.encode("\n\n", add_special_tokens=False).ids[0]) in (b"\n", b"\n\n")


def test_a_tokenizer_that_adds_bos_is_written_as_one(tiny_smolvlm: Path, tmp_path: Path) -> None:
    document = json.loads((tiny_smolvlm / "tokenizer.json").read_text(encoding="utf-8"))
    token = next(entry["id"] for entry in document["added_tokens"] if entry["content"] == "<|im_start|>")
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [token], "tokens": ["<|im_start|>"]}},
    }
    shutil.copyfile(tiny_smolvlm / "tokenizer_config.json", tmp_path / "tokenizer_config.json")
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    vocabulary = read_vocabulary(tmp_path, tokenizer.get_vocab_size())
    assert vocabulary.adds == {"bos": True, "eos": False}
    with LlamaVocab(write_vocabulary(vocabulary, tmp_path / "v.gguf")) as llama:
        assert llama.encode("a b", add_special=True) == tokenizer.encode("a b").ids
        assert llama.encode("a b", add_special=True)[0] == token


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        (
            {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
            "add_prefix_space",
        ),
    ],
)
def test_unknown_structures_are_refused(
    tiny_smolvlm: Path, tmp_path: Path, change: dict[str, object], word: str
) -> None:
    document = json.loads((tiny_smolvlm / "tokenizer.json").read_text(encoding="utf-8")) | change
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(CheckpointError, match=word):
        read_vocabulary(tmp_path, 600)


def test_more_tokens_than_rows_are_refused(tiny_smolvlm: Path) -> None:
    with pytest.raises(CheckpointError, match="vocab_size is 100"):
        read_vocabulary(tiny_smolvlm, 100)


def test_a_damaged_tokenizer_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE"}}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="is no tokenizer"):
        read_vocabulary(tmp_path, 100)


def test_a_missing_tokenizer_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is missing"):
        read_vocabulary(tmp_path, 100)


@pytest.mark.parametrize("real", BYTE_LEVEL, ids=lambda real: real.name)
def test_first_15000_tokens_of_real_vocabularies(source: Path, real: RealVocabulary, tmp_path: Path) -> None:
    size = write_tokenizer_json(source, real, tmp_path, limit=15_000)
    vocabulary = read_vocabulary(tmp_path, size)
    assert vocabulary.splitting.pre == real.pre
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = texts_for(tokenizer)
    assert differing_texts(tokenizer, write_vocabulary(vocabulary, tmp_path / "v.gguf"), texts) == []


@pytest.mark.parametrize("real", SENTENCEPIECE, ids=lambda real: real.name)
def test_real_sentencepiece_vocabularies(source: Path, real: RealVocabulary, tmp_path: Path) -> None:
    """Ranks of the merge list do for scores; the smaller vocabularies are whole, with ids of the model's tokenizer."""
    whole = real.name != "gemma-4"
    size = write_sentencepiece_json(source, real, tmp_path, limit=None if whole else 20_000)
    vocabulary = read_vocabulary(tmp_path, size)
    assert (vocabulary.splitting.model, vocabulary.splitting.pre) == ("llama", "default")
    assert vocabulary.splitting.space_prefix == whole and not vocabulary.merges
    path = write_vocabulary(vocabulary, tmp_path / "v.gguf")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert differing_texts(tokenizer, path, texts_for(tokenizer)) == []
    with LlamaVocab(path) as llama:
        for text, ids in expected_ids(source, real.name) if whole else ():
            assert llama.encode(text) == ids, text


def test_phi3s_stripping_tokens_need_its_name(source: Path, tmp_path: Path) -> None:
    """llama.cpp lets special tokens swallow spaces only in files whose name says phi-3."""
    real = next(real for real in SENTENCEPIECE if real.name == "phi-3")
    size = write_sentencepiece_json(source, real, tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    kept = [entry for entry in document["added_tokens"] if not entry["content"].startswith("[PAD")]
    for entry in kept:
        entry["rstrip"] = entry["content"] not in ("<unk>", "<s>", "<|endoftext|>")
    document["added_tokens"] = kept
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    vocabulary = read_vocabulary(tmp_path, size)
    assert vocabulary.model_name("Little") == "Little (phi-3 tokenizer)"
    assert vocabulary.model_name("Phi-3-mini") == "Phi-3-mini"
    path = tmp_path / "v.gguf"
    write_gguf(path, "llama", lambda writer: (writer.add_name("Phi-3-mini"), vocabulary.add_to(writer))[0], [])
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = [f"a{name}   b{name}\n c <s>  d" for name in ("<|end|>", "<|assistant|>", "</s>", "<|endoftext|>")]
    assert differing_texts(tokenizer, path, texts) == []


def test_a_name_does_not_switch_stripping_on(tiny_smolvlm: Path) -> None:
    vocabulary = read_vocabulary(tiny_smolvlm, 600)
    assert vocabulary.model_name("My-Phi-3-and-phi3-mix") == "My-Phi 3-and-phi 3-mix"
    assert vocabulary.model_name("modern-bert-vlm") == "modern bert-vlm"
    assert vocabulary.model_name("SmolVLM") == "SmolVLM"


@pytest.mark.slow
@pytest.mark.parametrize("real", BYTE_LEVEL, ids=lambda real: real.name)
def test_whole_real_vocabularies(source: Path, real: RealVocabulary, tmp_path: Path) -> None:
    """Tokens, types and merges are those of the published file, and ids those of the model's own tokenizer."""
    size = write_tokenizer_json(source, real, tmp_path)
    vocabulary = read_vocabulary(tmp_path, size)
    path = write_vocabulary(vocabulary, tmp_path / "v.gguf")
    published = read_metadata(source / "models" / f"ggml-vocab-{real.name}.gguf")
    padding = {i for i, text in enumerate(vocabulary.tokens) if text.startswith("[PAD")}
    assert list(vocabulary.tokens) == published["tokenizer.ggml.tokens"]
    assert list(vocabulary.merges) == published["tokenizer.ggml.merges"]
    kinds = zip(vocabulary.types, published["tokenizer.ggml.token_type"], strict=True)
    assert all(ours == theirs for i, (ours, theirs) in enumerate(kinds) if i not in padding)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert differing_texts(tokenizer, path, texts_for(tokenizer)) == []
    with LlamaVocab(path) as llama:
        for text, ids in expected_ids(source, real.name):
            assert llama.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids == ids, text
