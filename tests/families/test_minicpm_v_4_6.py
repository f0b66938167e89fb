"""MiniCPM-V 4.6: slices of whole tokens, both downsample modes, tower and both engines against transformers."""

from __future__ import annotations

import json
from dataclasses import replace
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
from tiny_minicpm_v_4_6 import make_tiny_minicpm_v_4_6

from edge_mllm.bundle.spec import PatchInput
from edge_mllm.bundle.tilers import AdaptiveSlices
from edge_mllm.costs.shapes import TowerShape
from edge_mllm.errors import EdgeMLLMError
from edge_mllm.picture.tile_plan import fit_tokens, low_detail, plan_tiles
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.families.family import Family
from edge_mllm_export.families.model_shape import model_shape
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.reference.strips import unrolled

PUBLISHED = AdaptiveSlices(tile=448, patch=14, max_slices=9, merge=4)
PLAIN = replace(PUBLISHED, merge=None)
PROCESSOR, CONFIG = "processor_config.json", "config.json"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_minicpm_v_4_6(tmp_path_factory.mktemp("tiny") / "minicpm46", nested=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The published sizes of slices and patches."""
    made = tmp_path_factory.mktemp("tiny") / "minicpm448"
    return Pair(make_tiny_minicpm_v_4_6(made, scale=448, side=70, nested=True))


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The same with four times as many tokens."""
    made = make_tiny_minicpm_v_4_6(tmp_path_factory.mktemp("tiny") / "fine", mode="4x", scale=448, side=70)
    return Pair(made)


def test_slices_are_whole_tokens_and_have_as_many_as_their_area() -> None:
    plan = plan_tiles(1344, 1344, PUBLISHED)
    assert (plan.rows, plan.cols, plan.count, plan.tile_size) == (3, 3, 10, (448, 448))
    assert plan.global_first and plan.tile_tokens(1) == (64,) * 10
    tall = plan_tiles(1080, 2400, PUBLISHED)
    assert tall.tile_tokens(1) == (60,) + (64,) * 8 and tall.tokens(1) == 572
    assert tall.grids == ((12, 5),) + ((8, 8),) * 8
    assert replace(tall, skipped=(0, 3)).tile_tokens(1) == (60,) + (64,) * 6
    assert plan_tiles(1080, 2400, replace(PUBLISHED, merge=2)).tokens(1) == 2304


def test_grids_are_those_of_slices_of_single_patches() -> None:
    """Only sides are rounded to other units."""
    for size in [(1, 1), (1, 1000), (1000, 1), (448, 448), (449, 448), *seeded_sizes(300, longest=5000)]:
        ours, others = plan_tiles(*size, PUBLISHED), plan_tiles(*size, PLAIN)
        assert (ours.rows, ours.cols, ours.has_global) == (others.rows, others.cols, others.has_global)
        assert all(side % 56 == 0 for side in ours.tile_size)


def test_fewer_tokens_on_demand() -> None:
    for most in (1000, 400, 200, 100):
        assert plan_tiles(1080, 2400, fit_tokens(PUBLISHED, (1080, 2400), most, 1)).tokens(1) <= most
    assert plan_tiles(1080, 2400, low_detail(PUBLISHED, 1080, 2400)).count == 1


def test_twenty_four_sizes_equal_the_reference(pair: Pair) -> None:
    for size in [(1, 1), (640, 480), *seeded_sizes(22, longest=1200)]:
        row = pair.row(size)
        assert row["pixels_equal"] and row["ids_equal"], row
        assert row["tokens"] == row["tiles"] // 16


def test_twenty_four_sizes_equal_the_reference_with_four_times_the_tokens(fine: Pair) -> None:
    for size in [(1, 1), (640, 480), *seeded_sizes(22, longest=1200)]:
        row = fine.row(size)
        assert row["pixels_equal"] and row["ids_equal"], row
        assert row["tokens"] == row["tiles"] // 4


def test_goldens(pair: Pair) -> None:
    for row in _golden_rows(pair, GOLDEN_SIZES):
        plan = plan_tiles(row["width"], row["height"], PUBLISHED)
        assert [plan.rows, plan.cols] == row["grid"]
        assert plan.tokens(1) == row["tokens"] == row["tiles"] // 16


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ids_with_pictures(pair: Pair, fine: Pair, count: int) -> None:
    for each in (pair, fine):
        found = compare_pictures(each, count, "Which is larger? <|im_end|> café\n<image_id>")
        assert len(found.ours) == count


def test_ids_with_a_system_message(pair: Pair) -> None:
    compare_system_message(pair)


def test_a_conversation_with_pictures_of_many_sizes(pair: Pair) -> None:
    """Pictures are counted from 0 through a conversation; the whole and the slices have tokens of their own number."""
    text, visual = compare_conversation(pair, [(1080, 2400), (50, 60), (300, 1500)]), "<|image_pad|>"
    assert f"<image_id>0</image_id><image>{visual * 60}</image><slice>{visual * 64}</slice>" in text
    assert f"</slice>\n<slice>{visual * 64}</slice>" in text
    assert "<image_id>2</image_id>" in text and "</slice>\n\n" not in text


@pytest.mark.parametrize("change", [{"slice_mode": False}, {"use_image_id": False}, {"max_slice_nums": 4}])
def test_settings_of_slices(tmp_path: Path, change: dict[str, Any]) -> None:
    """A picture without slices is what it is with one at most; marks without a number; fewer slices."""
    other = Pair(make_tiny_minicpm_v_4_6(tmp_path / "tiny", scale=448, side=70, processor=change))
    for size in ((640, 480), (1080, 700), (30, 40)):
        row = other.row(size)
        assert row["pixels_equal"] and row["ids_equal"], row
    assert ("slice_mode" not in change) == (other.row((640, 480))["grid"] != [1, 1])


def test_other_filters_and_means(tmp_path: Path) -> None:
    change = {"resample": 2, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "rescale_factor": 1 / 127.5}
    other = Pair(make_tiny_minicpm_v_4_6(tmp_path / "tiny", scale=448, side=70, processor=change))
    assert other.row((640, 480))["pixels_equal"] and other.row((30, 40))["pixels_equal"]


@pytest.mark.parametrize("side", [70, 10])
def test_places_in_the_table_are_the_references(side: int) -> None:
    """Every number of rows up to a thousand: also where a fraction falls on the edge of a bucket."""
    import torch
    from transformers.vision_utils import get_vision_nearest_position_ids

    from edge_mllm_export.families.minicpm_v.v4_6_tower import Tower

    class Places(Tower):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.register_buffer("boundaries", torch.arange(1 / side, 1.0, 1 / side))

    ours = Places()
    for count in range(1, 1001):
        expected = get_vision_nearest_position_ids(torch.tensor([[count, 1]]), side) // side
        assert torch.equal(ours._bucket(torch.arange(count)), expected), count


def test_strips_that_do_not_fit_their_sizes_are_refused() -> None:
    patches = PatchInput(patch=2, merge=1)
    strip = np.arange(24, dtype=np.float32).reshape(1, 3, 2, 4)
    found = unrolled(strip, np.array([[2, 1]]), patches)
    np.testing.assert_array_equal(found[1], strip[0, :, :, 2:].reshape(-1))
    with pytest.raises(ValueError, match="a strip of 4 columns"):
        unrolled(strip, np.array([[2, 2]]), patches)


def test_operations_of_layers_behind_the_merging(checkpoint: Path) -> None:
    """Layers behind it run over a quarter of the patches; attention before it is computed for each patch."""
    opened = open_checkpoint(checkpoint)
    tower = model_shape(opened, find_family(opened)).tower
    hidden, wide = 48, 88
    assert (tower.n_layer, tower.merged_layers, tower.tokens, tower.patches) == (3, 1, 1, 16)
    assert tower.merging_weights == 4 * 4 * hidden**2 + (4 * hidden) * (4 * wide) + (4 * wide) * hidden
    plain = replace(tower, merged_layers=0, merging_weights=0)
    block = 4 * hidden**2 + 2 * hidden * tower.n_ff
    assert plain.linear_ops - tower.linear_ops == 2 * 12 * block - 2 * 4 * tower.merging_weights
    assert plain.attention_scores - tower.attention_scores == 4 * (16 * 16 - 4 * 4)
    assert isinstance(tower, TowerShape)


def _sections(checkpoint: Path, **rotary: Any) -> tuple[int, ...]:
    opened = open_checkpoint(checkpoint)
    given = opened.config["text_config"]["rope_parameters"]
    opened.config["text_config"]["rope_parameters"] = given | rotary
    return find_family(opened).decoder(opened).mrope_sections


def test_sections_of_rotary_frequencies(checkpoint: Path) -> None:
    """Thirds where config.json names none, as the language model's class has them for its published width."""
    assert _sections(checkpoint) == (6, 5, 5)
    assert _sections(checkpoint, partial_rotary_factor=0.5) == (11, 11, 10)
    assert _sections(checkpoint, mrope_section=[8, 4, 4]) == (8, 4, 4)
    with pytest.raises(EdgeMLLMError, match=r"mrope_section.*expected three"):
        _sections(checkpoint, mrope_section=[8, 4])


def _image(**change: Any) -> dict[str, Any]:
    return {"image_processor": change}


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        (PROCESSOR, _image(do_resize=False), r"processor_config.json.*image_processor.do_resize"),
        (PROCESSOR, _image(patch_size=16), r"processor_config.json.*patch_size.*model has 14"),
        (PROCESSOR, _image(downsample_mode="4x"), r"processor_config.json.*downsample_mode.*model has \"16x\""),
        (PROCESSOR, _image(downsample_mode="8x"), r"processor_config.json.*downsample_mode"),
        (PROCESSOR, _image(scale_resolution=40), r"processor_config.json.*scale_resolution.*from 56 on"),
        (PROCESSOR, _image(max_slice_nums=0), r"processor_config.json.*max_slice_nums"),
        (PROCESSOR, _image(slice_mode="yes"), r"processor_config.json.*slice_mode"),
        (PROCESSOR, _image(image_std=[0, 1, 1]), r"processor_config.json.*image_std"),
        (PROCESSOR, _image(resample=7), r"processor_config.json.*resample"),
        (
            PROCESSOR,
            _image(image_processor_type="MiniCPMVImageProcessor"),
            r"processor_config.json.*image_processor_type",
        ),
        (PROCESSOR, {"use_image_id": False}, r"processor_config.json.*use_image_id"),
        ("tokenizer_config.json", {"extra_special_tokens": {"image_token": "<|image_pad|>"}}, r"image_start_token"),
        (
            "tokenizer_config.json",
            {"extra_special_tokens": {"image_token": "<think>"}},
            r"image_token.*is <think>, but",
        ),
        (CONFIG, {"downsample_mode": "2x"}, r"config.json.*downsample_mode.*16x, 4x"),
        (CONFIG, {"downsample_mode": "4x"}, r"processor_config.json.*downsample_mode"),
        (CONFIG, {"merger_times": 2}, r"config.json.*merger_times.*known for this model: 1"),
        (CONFIG, {"merge_kernel_size": [4, 4]}, r"config.json.*merge_kernel_size"),
        (CONFIG, {"drop_vision_last_layer": True}, r"config.json.*drop_vision_last_layer"),
        (CONFIG, {"insert_layer_id": 3}, r"config.json.*insert_layer_id.*3 layers"),
        (CONFIG, {"insert_layer_id": -1}, r"config.json.*insert_layer_id"),
        (CONFIG, {"image_token_id": 7}, r"config.json.*image_token_id"),
        (CONFIG, {"vision_config": {"patch_size": 0}}, r"config.json.*patch_size"),
        (CONFIG, {"vision_config": {"patch_size": [14, 14]}}, r"config.json.*patch_size"),
        (CONFIG, {"vision_config": {"image_size": 7}}, r"config.json.*patch_size.*there is no patch"),
        (CONFIG, {"vision_config": {"window_kernel_size": [4, 4]}}, r"config.json.*window_kernel_size"),
        (CONFIG, {"vision_config": {"num_channels": 1}}, r"config.json.*num_channels"),
        (CONFIG, {"vision_config": {"hidden_size": "wide"}}, r"config.json.*hidden_size"),
        (CONFIG, {"text_config": {"vocab_size": 100}}, r"config.json.*vocab_size"),
        (CONFIG, {"text_config": {"model_type": "qwen3_5_moe_text"}}, r"config.json.*text_config.model_type"),
        (CONFIG, {"text_config": {"layer_types": ["mamba"] * 5}}, r"config.json.*layer_types"),
        (CONFIG, {"text_config": {"linear_num_value_heads": 3}}, r"config.json.*linear_num_value_heads"),
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


def _read(directory: Path) -> Family:
    opened = open_checkpoint(directory)
    family = find_family(opened)
    for part in (family.image, family.vision, family.prompt, family.decoder):
        part(opened)
    return family


@pytest.mark.parametrize(
    "name",
    [
        "model.vision_tower.vit_merger.linear_1.weight",
        "model.merger.mlp.0.linear_2.bias",
        "model.vision_tower.post_layernorm.weight",
        "model.language_model.norm.weight",
    ],
)
def test_a_missing_tensor_is_named(checkpoint: Path, tmp_path: Path, name: str) -> None:
    check_missing_tensor(checkpoint, tmp_path, name)
