"""The reference is the directory's own processor: nothing of ours is handed to it, and what was decided is told."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_makers import make_tiny
from family_parity import Pair
from image_settings import picture
from PIL import Image
from tiny_models import make_tiny_smolvlm

from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.errors import VerificationError
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.reference.own_processor import processor_class
from edge_mllm_export.reference.processor import load_processor
from edge_mllm_export.source.source import resolve_source

LIST = "a  5 and\n1.  Milk\n2.  Bread 12"
NATIVE = (
    "idefics3",
    "internvl",
    "llava",
    "llava_next",
    "llava_onevision",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "gemma3",
)


def change(file: Path, **fields: Any) -> None:
    document = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.write_text(json.dumps(document | fields), encoding="utf-8")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("own")
    return {family: make_tiny(family, home) for family in NATIVE}


@pytest.fixture
def smolvlm(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoints["idefics3"], tmp_path / "smolvlm"))


@pytest.mark.parametrize("family", NATIVE)
def test_every_family_loads_the_class_that_its_files_name(checkpoints: dict[str, Path], family: str) -> None:
    opened = open_checkpoint(checkpoints[family])
    loaded = load_processor(opened, find_family(opened))
    named = processor_class(checkpoints[family])
    assert named.__module__.startswith("transformers.models.")
    assert isinstance(loaded.processor, named)
    assert loaded.described["class"] == named.__name__
    assert loaded.described["image_processor"].endswith("Pil")
    assert loaded.described["tokenizer"]["differing"] == 0
    assert loaded.described["tokenizer"]["texts"] > 20


@pytest.mark.parametrize("family", ["idefics3", "gemma3"])
def test_it_gives_what_auto_processor_gives(checkpoints: dict[str, Path], family: str) -> None:
    """Where that can be loaded without torchvision and sizes are in the files."""
    from transformers import AutoProcessor

    opened = open_checkpoint(checkpoints[family])
    loaded = load_processor(opened, find_family(opened))
    rgb = Image.fromarray(picture(90, 40))
    content = [{"type": "image", "image": rgb}, {"type": "text", "text": LIST}]
    theirs = AutoProcessor.from_pretrained(checkpoints[family], backend="pil").apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": LIST}]}]
    ours = loaded.inputs(messages, [rgb])
    assert set(ours) == set(theirs)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_smolvlm_needs_neither_videos_nor_their_number_words(tmp_path: Path) -> None:
    source = make_tiny_smolvlm(tmp_path / "smolvlm2", smolvlm2=True)
    change(source / "processor_config.json", processor_class="SmolVLMProcessor", video_processor={"fps": 1})
    pair = Pair(source)
    assert pair.processor.described["class"] == "SmolVLMProcessor"
    found = pair.compare([picture(90, 40), picture(30, 80)], LIST)
    assert found.ids_equal and found.pixels_equal
    assert sys.modules["transformers.models.smolvlm.processing_smolvlm"].num2words is None or "num2words" in sys.modules


def test_a_class_that_forgets_the_digits_is_told_and_not_followed(smolvlm: Path) -> None:
    """Older SmolVLM saves name GPT2Tokenizer, which this transformers builds without the file's split of digits."""
    change(smolvlm / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    pair = Pair(smolvlm)
    decided = pair.processor.described["tokenizer"]
    assert (decided["taken"], decided["class"]) == ("tokenizer.json", "GPT2Tokenizer")
    assert 0 < decided["differing"] < decided["texts"]
    first = decided["first"][0]
    assert first["class"] != first["tokenizer.json"]
    assert "5" in first["text"]
    found = pair.compare([picture(90, 40)], LIST)
    assert found.ids_equal
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(smolvlm)(LIST)["input_ids"]
    assert theirs != pair.tokenizer.encode(LIST).ids


def test_a_missing_normaliser_is_told(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    source = Path(shutil.copytree(checkpoints["qwen2_vl"], tmp_path / "x"))
    change(source / "tokenizer.json", normalizer=None)
    pair = Pair(source)
    decided = pair.processor.described["tokenizer"]
    assert (decided["taken"], decided["class"]) == ("tokenizer.json", "Qwen2Tokenizer")
    assert any("\u0301" in row["text"] for row in decided["first"])
    assert pair.compare([], "cafe\u0301").ids_equal


def test_tokens_that_tokenizer_json_lacks_are_told_and_compared(smolvlm: Path) -> None:
    change(smolvlm / "tokenizer_config.json", pad_token="<mark>")
    change(smolvlm / "config.json", text_config={**_text(smolvlm), "vocab_size": 524})
    pair = Pair(smolvlm)
    assert pair.processor.described["tokenizer"]["declared"] == ["<mark>"]
    found = pair.compare([], "a<mark>b")
    assert found.ids_equal
    assert pair.tokenizer.token_to_id("<mark>") in found.ids


def _text(directory: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))["text_config"]
    return document


def test_counts_that_the_files_lack_are_the_models_and_told(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    source = Path(shutil.copytree(checkpoints["llava"], tmp_path / "x"))
    decided = Pair(source).processor.described["counts_of_the_model"]
    assert decided == ["patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"]
    change(
        source / "processor_config.json",
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    pair = Pair(source)
    assert pair.processor.described["counts_of_the_model"] == []
    assert pair.compare([picture(40, 40)], "What?").ids_equal


def test_a_class_that_transformers_does_not_have_is_told(smolvlm: Path) -> None:
    change(smolvlm / "processor_config.json", processor_class="NobodysProcessor")
    assert "no processor called NobodysProcessor" in _refusal(smolvlm)


def test_what_transformers_cannot_load_is_told(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """InternVL's class wants names for its tokens, which some fine-tunes lose."""
    source = Path(shutil.copytree(checkpoints["internvl"], tmp_path / "x"))
    change(source / "tokenizer_config.json", extra_special_tokens={})
    assert "transformers cannot load the processor" in _refusal(source)


def _refusal(directory: Path) -> str:
    opened = open_checkpoint(directory)
    with pytest.raises(VerificationError) as caught:
        load_processor(opened, find_family(opened))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_older_vocabulary_files_do_not_make_it_another_layout(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """A directory that only lacks tokenizer.json is its class's own, not one that needs a publisher's code."""
    source = Path(shutil.copytree(checkpoints["qwen2_vl"], tmp_path / "x"))
    document = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    (source / "tokenizer.json").unlink()
    (source / "vocab.json").write_text(json.dumps(document["model"]["vocab"]), encoding="utf-8")
    merges = [" ".join(pair) for pair in document["model"]["merges"]]
    (source / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    pair = Pair.of(resolve_source(str(source), tmp_path))
    assert pair.processor.described["class"] == "Qwen2VLProcessor"
    assert pair.compare([picture(60, 60)], LIST).ids_equal
