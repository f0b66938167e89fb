"""A GGUF file and its mmproj, as the export writes them for llama.cpp, opened as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle.nasty_texts import nasty_texts
from tokenizers import Tokenizer
from typer.testing import CliRunner

import edge_mllm
from edge_mllm.cli.main import app
from edge_mllm.errors import (
    BundleError,
    EngineError,
    ModelNotFoundError,
    PartMismatchError,
    PromptError,
    SchemaError,
    SettingError,
)
from edge_mllm.machine.llama import library
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.gguf.file import write_gguf
from edge_mllm_export.write.gguf.decoder import write_decoder_gguf
from edge_mllm_export.write.text_model import write_text_checkpoint
from edge_mllm_export.write.vision.mmproj import write_mmproj

STARTER = Path(__file__).resolve().parents[2] / "starter"
LABEL = STARTER / "demo" / "label.png"
QUESTION = "What does it say?"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    out = tmp_path_factory.mktemp("pair")
    checkpoint = open_checkpoint(STARTER / "checkpoint")
    text = write_text_checkpoint(checkpoint, find_family(checkpoint), out / "text")
    write_decoder_gguf(text, out / "model.gguf", "q8_0", name="starter")
    write_mmproj(checkpoint, find_family(checkpoint), out / "mmproj.gguf", "f16")
    return out / "model.gguf", out / "mmproj.gguf"


@pytest.fixture(scope="module")
def model(pair: tuple[Path, Path]) -> Any:
    with edge_mllm.load(pair[0], mmproj=pair[1], threads=1) as loaded:
        yield loaded


def test_it_reads_the_committed_picture(model: Any) -> None:
    answer = model.generate(QUESTION, [LABEL], max_new_tokens=24)
    assert answer.text.strip() == "Coffee $4.60"
    assert (answer.model, answer.engine, answer.finish_reason) == ("starter", "gguf", "stop")
    assert answer.usage.image_tokens == answer.images[0].tokens == 180 and answer.images[0].tiles == 5
    times = answer.timings
    assert min(times.preprocess_s, times.vision_s, times.prefill_s, times.decode_s, times.ttft_s, times.load_s) > 0
    again = model.generate(QUESTION, [LABEL], max_new_tokens=24)
    assert (again.text, again.images[0].source, again.timings.vision_s) == (answer.text, "kv", 0)


def test_the_prompt_is_the_bundles(model: Any) -> None:
    """Token for token, with pictures, several of them, and without; the starter's bundle has the same template."""
    pictures = [np.full((40, 200, 3), 200, np.uint8), LABEL]
    with edge_mllm.load(threads=1) as bundle:
        for images in ([], pictures[:1], pictures):
            expected = bundle.prompt_ids(QUESTION, images)
            expected[expected == bundle.spec.prompt.image_token_id] = -1
            assert model.prompt_ids(QUESTION, images).tolist() == expected.tolist()
            assert (expected == -1).any() == bool(images)
        pixels = bundle.preprocess(LABEL).pixels
    checkpoint = open_checkpoint(STARTER / "checkpoint")
    with torch.inference_mode():
        theirs = find_family(checkpoint).build_tower(checkpoint)(torch.from_numpy(pixels)).flatten(0, 1).numpy()
    ours = model.encode(LABEL)
    assert ours.shape == theirs.shape
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9  # libmtmd resizes pictures with its own code


def test_a_chat_keeps_its_pictures_and_its_cells(model: Any) -> None:
    chat = model.chat()
    chat.ask(QUESTION, [LABEL], max_new_tokens=24)
    second = chat.ask("What is the price?", max_new_tokens=24)
    assert "4.60" in second.text
    assert second.usage.reused_tokens > 180 and second.images[0].source == "kv"


def test_pictures_are_prepared_in_the_background(model: Any) -> None:
    picture = np.full((60, 120, 3), 90, np.uint8)
    model.prepare(picture).wait()
    assert model.generate(QUESTION, [picture], max_new_tokens=2).images[0].source == "prepared"


def test_its_vocabulary_is_tokenizer_json(model: Any) -> None:
    tokenizer = Tokenizer.from_file(str(STARTER / "checkpoint" / "tokenizer.json"))
    for text in nasty_texts(("<image>", "<end_of_utterance>")):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert model.reader.tokenizer.encode(text).tolist() == ids
        assert model.reader.tokenizer.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True)


def test_text_alone_needs_no_mmproj(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with edge_mllm.load(pair[0], threads=1) as model:
        assert model.generate("Hi", max_new_tokens=3).usage.image_tokens == 0
        with pytest.raises(PromptError, match=r"takes no pictures without its mmproj; give it as `mmproj`, perhaps"):
            model.generate("Hi", [LABEL])
    alone = Path(shutil.copy(pair[0], tmp_path / "alone.gguf"))
    with edge_mllm.load(alone, threads=1) as model, pytest.raises(PromptError, match=r"mmproj; give it as `mmproj`"):
        model.generate("Hi", [LABEL])


def test_files_in_the_wrong_place(pair: tuple[Path, Path], tiny_smolvlm: Path, tmp_path: Path) -> None:
    model, mmproj = pair
    checkpoint = open_checkpoint(tiny_smolvlm)
    other = tmp_path / "other.gguf"
    write_mmproj(checkpoint, find_family(checkpoint), other, "f16")
    with pytest.raises(PartMismatchError, match=r"not the tower of this language model .*n_embd = 256.*n_embd = 64"):
        edge_mllm.load(model, mmproj=other, threads=1)
    with pytest.raises(BundleError, match="it is a vision tower; give the language model as `model`"):
        edge_mllm.load(mmproj)
    with pytest.raises(BundleError, match="it is no vision tower; `mmproj` takes the mmproj file"):
        edge_mllm.load(model, mmproj=model)
    with pytest.raises(ModelNotFoundError, match=r"none\.gguf"):
        edge_mllm.load(tmp_path / "none.gguf")
    with pytest.raises(ModelNotFoundError, match=r"none\.gguf"):
        edge_mllm.load(model, mmproj=tmp_path / "none.gguf")
    with pytest.raises(SettingError, match="`mmproj` goes with a GGUF file"):
        edge_mllm.load(mmproj=mmproj)


@pytest.mark.parametrize("keep", [0, 3, 30, 2000, -1000])
def test_damaged_files(pair: tuple[Path, Path], tmp_path: Path, keep: int) -> None:
    for number, file in enumerate(pair):
        cut = tmp_path / file.name
        cut.write_bytes(file.read_bytes()[:keep])
        with pytest.raises(BundleError, match=rf"{file.name}.*not a GGUF file that can be read"):
            edge_mllm.load(*((cut,) if number == 0 else (pair[0],)), mmproj=cut if number else None, threads=1)


def test_metadata_that_cannot_be_true(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(file, "llama", lambda writer: writer.add_context_length(7), [])
    with pytest.raises(BundleError, match="holds no language model"):
        edge_mllm.load(file)
    write_gguf(file, "clip", lambda writer: writer.add_clip_has_vision_encoder(False), [])
    with pytest.raises(BundleError, match="it is a vision tower"):
        edge_mllm.load(file)


def test_what_this_layout_cannot_do(model: Any, pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="`detail='low'` needs a bundle"):
        model.generate(QUESTION, [LABEL], detail="low")
    with pytest.raises(PromptError, match="need 180 visual tokens, max_image_tokens allows 50"):
        model.generate(QUESTION, [LABEL], max_image_tokens=50)
    with pytest.raises(SchemaError, match=r"has no tokenizer\.json"):
        model.generate(QUESTION, json_schema="{}")
    with pytest.raises(EngineError, match="is no bundle"):
        model.preprocess(LABEL)
    with pytest.raises(SettingError, match="cannot be saved"):
        model.chat().save(tmp_path / "chat")
    for option, words in (
        ({"engine": "onnx"}, "which has gguf"),
        ({"low_memory": True}, "`low_memory` is not for GGUF files"),
        ({"precision": "q4"}, "leave `precision` out"),
    ):
        with pytest.raises((EngineError, SettingError), match=words):
            edge_mllm.load(pair[0], mmproj=pair[1], threads=1, **option)


@pytest.mark.parametrize("mark", ["<image>", "<__media__>"])
def test_a_mark_in_a_text_is_text(model: Any, mark: str) -> None:
    """The template's placeholder and libmtmd's own; the picture keeps its one place, and the chat goes on."""
    chat = model.chat()
    chat.ask(f"An RSS file has {mark} in it.", max_new_tokens=2)
    answer = chat.ask(f"{mark} {QUESTION}", [LABEL], max_new_tokens=2)
    assert answer.usage.image_tokens == 180
    ids = model.prompt_ids(f"An RSS file has {mark} in it.")
    assert (ids >= 0).all()
    assert mark in model.reader.tokenizer.decode(ids.tolist(), skip_special_tokens=True)


def test_the_command_line(pair: tuple[Path, Path]) -> None:
    files = ["-m", str(pair[0]), "--mmproj", str(pair[1])]
    done = CliRunner().invoke(app, ["run", *files, "-i", str(LABEL), "--json", "--threads", "1", QUESTION])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["text"].strip() == "Coffee $4.60" and found["usage"]["image_tokens"] == 180
    shown = CliRunner().invoke(app, ["inspect", str(pair[0]), "--mmproj", str(pair[1])])
    assert shown.exit_code == 0 and "projector idefics3" in shown.stdout and "width 256" in shown.stdout
    assert "bits per weight: " in shown.stdout
    hint = CliRunner().invoke(app, ["inspect", str(pair[0])])
    assert "none without --mmproj FILE; mmproj.gguf lies beside it" in " ".join(hint.stdout.split())
    refused = CliRunner().invoke(app, ["chat", *files, "--chat-file", "x.chat"], input="hi\n")
    assert refused.exit_code == 1 and "cannot be saved" in refused.stderr


def test_dropped_without_close_it_gives_its_memory_back(pair: tuple[Path, Path], monkeypatch: Any) -> None:
    from llama_cpp import mtmd_cpp

    freed = []
    for api, name in ((mtmd_cpp, "mtmd_free"), (library().api, "llama_free"), (library().api, "llama_model_free")):
        genuine = getattr(api, name)
        monkeypatch.setattr(api, name, lambda handle, f=genuine, n=name: (freed.append(n), f(handle)))
    loaded = edge_mllm.load(pair[0], mmproj=pair[1], threads=1)
    loaded.generate(QUESTION, [LABEL], max_new_tokens=2)
    freed.clear()  # the context that asks how the model takes its token rows
    del loaded
    assert sorted(freed) == ["llama_free", "llama_model_free", "mtmd_free"] and freed[-1] == "llama_model_free"


def test_log_probabilities_spell_the_answer(model: Any) -> None:
    answer = model.generate(QUESTION, [LABEL], max_new_tokens=24, logprobs=1)
    told = [step.chosen for step in answer.logprobs]
    assert b"".join(token.data for token in told).decode() == answer.text
    assert all(step.top[0] == step.chosen for step in answer.logprobs)
