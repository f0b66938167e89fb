"""MiniCPM-V 4.7: pictures, ids and the position of every token against transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_makers import changed_copy, check_missing_tensor
from family_parity import (
    GOLDEN_SIZES,
    Pair,
    _golden_rows,
    compare_conversation,
    compare_pictures,
    compare_system_message,
    seeded_sizes,
)
from image_settings import chat
from tiny_minicpm_v_4_7 import make_tiny_minicpm_v_4_7

from edge_mllm.bundle.tilers import AdaptiveSlices
from edge_mllm.errors import EdgeMLLMError
from edge_mllm.picture.tile_plan import plan_tiles
from edge_mllm.prompt.build import build_prompt
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.families.family import Family
from edge_mllm_export.families.registry import find_family

PUBLISHED = AdaptiveSlices(tile=448, patch=14, max_slices=9, merge=4)
CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_minicpm_v_4_7(tmp_path_factory.mktemp("tiny") / "minicpm47", nested=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The published sizes of slices and patches."""
    made = tmp_path_factory.mktemp("tiny") / "minicpm448"
    return Pair(make_tiny_minicpm_v_4_7(made, scale=448, side=70, nested=True))


def reference_model(pair: Pair) -> Any:
    """The class with this checkpoint's configuration, without memory."""
    import torch
    from transformers import AutoConfig, MiniCPMV4_7ForConditionalGeneration

    with torch.device("meta"):
        return MiniCPMV4_7ForConditionalGeneration(AutoConfig.from_pretrained(pair.checkpoint.path)).model


def check_positions(pair: Pair, model: Any, messages: list[dict[str, Any]], sizes: list[tuple[int, int]]) -> None:
    """Ids of a conversation, the positions of all of them, and the position of an answer's first token."""
    from PIL import Image

    inputs = pair.processor.inputs(messages, [Image.new("RGB", size) for size in sizes])
    expected, delta = model.get_rope_index(
        inputs["input_ids"],
        inputs["mm_token_type_ids"],
        inputs.get("target_sizes"),
        attention_mask=inputs["attention_mask"],
    )
    plans = [plan_tiles(*size, pair.spec.image.tiler) for size in sizes]
    ours = build_prompt(messages, plans, pair.spec, pair.tokenizer, pair.template)
    np.testing.assert_array_equal(ours.ids, inputs["input_ids"][0].numpy())
    assert ours.places is not None
    np.testing.assert_array_equal(ours.places[:3], expected[:, 0].numpy())
    assert ours.places[3, -1] == len(ours.ids) + int(delta)


def test_twenty_four_sizes_equal_the_reference(pair: Pair) -> None:
    model = reference_model(pair)
    for size in [(1, 1), (640, 480), *seeded_sizes(22, longest=1200)]:
        row = pair.row(size)
        assert row["pixels_equal"] and row["ids_equal"], row
        assert row["tokens"] == row["tiles"] // 16
        check_positions(pair, model, chat("What is the total?", 1), [size])


def test_goldens(pair: Pair) -> None:
    for row in _golden_rows(pair, GOLDEN_SIZES):
        plan = plan_tiles(row["width"], row["height"], PUBLISHED)
        assert ([plan.rows, plan.cols], plan.tokens(1)) == (row["grid"], row["tokens"])


@pytest.mark.parametrize("mode", ["16x", "4x"])
def test_positions_of_golden_sizes(tmp_path: Path, mode: str) -> None:
    pair = Pair(make_tiny_minicpm_v_4_7(tmp_path / "tiny", mode=mode, scale=448, side=70, sections=(4, 6, 6)))
    model = reference_model(pair)
    for size in GOLDEN_SIZES:
        check_positions(pair, model, chat("What?", 1), [size])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ids_with_pictures(pair: Pair, count: int) -> None:
    """Marks in the question, and lines before it, which belong to the picture where they follow it."""
    model = reference_model(pair)
    for question in (
        "Which is larger? <|im_end|> café\n<image_id>",
        "\n",
        "\nWhat? <image></image>",
        "</slice>\n<image>",
    ):
        assert len(compare_pictures(pair, count, question).ours) == count
        check_positions(pair, model, chat(question, count), [(500, 1100), (900, 90), (40, 40)][:count])


def test_ids_with_a_system_message(pair: Pair) -> None:
    compare_system_message(pair)


def test_a_conversation_with_pictures_of_many_sizes(pair: Pair) -> None:
    text, visual = compare_conversation(pair, [(1080, 2400), (50, 60), (300, 1500)]), "<|image_pad|>"
    assert f"<image_id>0</image_id><image>{visual * 60}</image><slice>{visual * 64}</slice>" in text


@pytest.mark.parametrize("numbered", [True, False])
def test_positions_of_a_conversation(tmp_path: Path, numbered: bool) -> None:
    """Without numbers, the mark that opens a picture may follow the one before without a gap."""
    settings = {"use_image_id": numbered}
    pair = Pair(make_tiny_minicpm_v_4_7(tmp_path / "tiny", scale=448, side=70, processor=settings))
    picture, text = {"type": "image"}, {"type": "text", "text": "What?"}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [picture, picture, text]},
        {"role": "assistant", "content": "\nA cat."},
        {"role": "user", "content": [text, picture]},
    ]
    check_positions(pair, reference_model(pair), messages, [(1080, 2400), (50, 60), (300, 1500)])


def test_settings_of_slices(tmp_path: Path) -> None:
    for change in ({"slice_mode": False}, {"max_slice_nums": 4}):
        other = Pair(make_tiny_minicpm_v_4_7(tmp_path / str(*change), scale=448, side=70, processor=change))
        for size in ((640, 480), (30, 40)):
            row = other.row(size)
            assert row["pixels_equal"] and row["ids_equal"], row
            check_positions(other, reference_model(other), chat("What?", 1), [size])


def _decoder(checkpoint: Path, **rotary: Any) -> Any:
    opened = open_checkpoint(checkpoint)
    given = opened.config["text_config"]["rope_parameters"]
    opened.config["text_config"]["rope_parameters"] = {
        name: value for name, value in (given | rotary).items() if value is not None
    }
    return find_family(opened).decoder(opened)


def test_shares_of_rotary_frequencies(checkpoint: Path) -> None:
    """Unlike where all three positions are one number, what the class does where nothing is named must fit."""
    assert _decoder(checkpoint).positions == "canvas"
    assert _decoder(checkpoint, mrope_section=[8, 4, 4]).mrope_sections == (8, 4, 4)
    assert _decoder(checkpoint, mrope_section=None, partial_rotary_factor=0.5).mrope_sections == (11, 11, 10)
    with pytest.raises(EdgeMLLMError, match=r"mrope_section: is \[11, 11, 10\], but there are 16 rotary frequencies"):
        _decoder(checkpoint, mrope_section=None)
    with pytest.raises(EdgeMLLMError, match=r"mrope_section.*expected three"):
        _decoder(checkpoint, mrope_section=[8, 8])


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        (CONFIG, {"image_start_id": None}, r"config.json.*image_start_id.*is None"),
        (CONFIG, {"image_end_id": 7}, r"config.json.*image_end_id.*is 7, but the tokenizer's </image> is"),
        (CONFIG, {"slice_start_id": "seven"}, r"config.json.*slice_start_id"),
        (CONFIG, {"slice_end_id": 7}, r"config.json.*slice_end_id.*is 7"),
        (CONFIG, {"newline_id": 7}, r"config.json.*newline_id.*is 7, but the tokenizer's newline is 198"),
        (CONFIG, {"image_token_id": 7}, r"config.json.*image_token_id"),
        (CONFIG, {"downsample_mode": "2x"}, r"config.json.*downsample_mode.*16x, 4x"),
        (CONFIG, {"downsample_mode": "4x"}, r"processor_config.json.*downsample_mode"),
        (CONFIG, {"merger_times": 2}, r"config.json.*merger_times.*known for this model: 1"),
        (CONFIG, {"drop_vision_last_layer": True}, r"config.json.*drop_vision_last_layer"),
        (CONFIG, {"insert_layer_id": 3}, r"config.json.*insert_layer_id.*3 layers"),
        (CONFIG, {"model_type": "minicpmv4_6"}, r"config.json.*model_type.*has 'minicpmv4_7'"),
        (CONFIG, {"vision_config": {"image_size": 7}}, r"config.json.*patch_size.*there is no patch"),
        (
            CONFIG,
            {"text_config": {"layer_types": ["full_attention"] * 5}},
            r"config.json.*layer_types.*names no layer of",
        ),
        (CONFIG, {"text_config": {"layer_types": ["mamba"] * 5}}, r"config.json.*layer_types"),
        (CONFIG, {"text_config": {"vocab_size": 100}}, r"config.json.*vocab_size"),
        (TOKENIZER, {"extra_special_tokens": {"image_token": "<|image_pad|>"}}, r"image_start_token"),
    ],
)
def test_hostile_settings_name_file_and_field(
    checkpoint: Path, tmp_path: Path, file: str, change: dict[str, Any], says: str
) -> None:
    document = json.loads((checkpoint / file).read_text(encoding="utf-8"))
    nested = {
        name: document[name] | value
        for name, value in change.items()
        if isinstance(value, dict) and name != "extra_special_tokens"
    }
    changed_copy(checkpoint, tmp_path, file, change | nested)
    with pytest.raises(EdgeMLLMError, match=says):
        _read(tmp_path)


def test_the_mixture_of_experts_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """The larger published model has another language model."""
    document = json.loads((checkpoint / CONFIG).read_text(encoding="utf-8"))
    text = document["text_config"] | {"model_type": "qwen3_5_moe_text"}
    changed_copy(checkpoint, tmp_path, CONFIG, {"text_config": text})
    with pytest.raises(EdgeMLLMError, match=r"config.json.*text_config.model_type.*qwen3_5_moe_text"):
        _read(tmp_path)


def _read(directory: Path) -> Family:
    opened = open_checkpoint(directory)
    family = find_family(opened)
    for part in (family.image, family.vision, family.prompt, family.decoder):
        part(opened)
    return family


def test_a_missing_tensor_is_named(checkpoint: Path, tmp_path: Path) -> None:
    check_missing_tensor(checkpoint, tmp_path, "model.vision_tower.vit_merger.linear_1.weight")
