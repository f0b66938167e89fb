"""Qwen2.5-VL: windows, patches, token ids, tower and both engines against transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from family_engines import Engines, check_continuations, check_tower, four_bits
from family_makers import changed_copy, check_refused
from family_parity import Pair, check_native_goldens, check_sizes, compare_pictures
from tiny_qwen2_vl import make_tiny_qwen2_5_vl

from edge_mllm.bundle.spec import PatchInput
from edge_mllm.bundle.tilers import NativeResolution
from edge_mllm.errors import BundleError, EdgeMLLMError, PartMismatchError
from edge_mllm.picture.patches import patch_windows
from edge_mllm.session.files import open_bundle
from edge_mllm.tower.tower import VisionTower
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.families.registry import find_family

PUBLISHED = NativeResolution(unit=28, min_pixels=3136, max_pixels=12_845_056)
GRIDS = [(1, 1), (2, 3), (4, 4), (5, 4), (4, 9), (9, 7), (1, 13), (13, 1), (8, 8), (3, 17)]
"""Rows and columns of visual tokens: one window, whole windows, and windows cut off at either edge or both."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_qwen2_5_vl(tmp_path_factory.mktemp("tiny") / "qwen2_5-vl")


@pytest.fixture(scope="module")
def pair(checkpoint: Path) -> Pair:
    return Pair(checkpoint)


@pytest.mark.parametrize("window", [28, 56, 112])
@pytest.mark.parametrize("grid", GRIDS)
def test_windows_are_the_references(grid: tuple[int, int], window: int) -> None:
    import torch
    from transformers.vision_utils import get_vision_window_index

    size = torch.tensor([[1, 2 * grid[0], 2 * grid[1]]])
    tokens, ends = get_vision_window_index(size, spatial_merge_size=2, window_size=window, patch_size=14)
    patches = (4 * tokens[:, None] + torch.arange(4)).reshape(-1).numpy()
    expected = np.split(patches, ends[1:-1].tolist())
    windows, places = patch_windows(grid, PatchInput(patch=14, merge=2, frames=2, window=window // 14))
    assert [sorted(row) for row in expected] == [row[row >= 0].tolist() for row in windows]
    assert np.array_equal(windows.reshape(-1)[places], np.arange(len(places)))
    assert all((row[(row >= 0).sum() :] == -1).all() for row in windows)


def test_twenty_four_sizes_equal_the_reference(pair: Pair) -> None:
    check_sizes(pair)


def test_goldens(pair: Pair) -> None:
    check_native_goldens(pair, PUBLISHED)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ids_with_pictures(pair: Pair, count: int) -> None:
    compare_pictures(pair, count, "Which is larger? <|im_end|> café <tool_call>")


@pytest.fixture(scope="module")
def engines(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(checkpoint, tmp_path_factory.mktemp("bundle") / "qwen2_5-vl.edge")


def test_tower_equals_torch(engines: Engines) -> None:
    check_tower(engines)


def test_tower_equals_torch_on_any_grid(engines: Engines, checkpoint: Path) -> None:
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    reference = Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval().model.visual
    rng = np.random.default_rng(0)
    for rows, cols in GRIDS:
        pixels = rng.standard_normal((4 * rows * cols, 1176)).astype(np.float32)
        with torch.inference_mode():
            out = reference(torch.from_numpy(pixels), torch.tensor([[1, 2 * rows, 2 * cols]]))
        ours = engines.candidate.tower.encode(pixels, grids=[(rows, cols)]).rows
        assert np.abs(ours - out.pooler_output.numpy()).max() < 1e-5, (rows, cols)


def test_windows_of_another_tower_are_refused(engines: Engines) -> None:
    tower = engines.candidate.tower
    assert tower.spec.patches is not None
    for window, says in ((4, r"'windows' is tensor\(int64\)"), (None, "should have 'pixels' and 'positions' alone")):
        spec = replace(tower.spec, patches=replace(tower.spec.patches, window=window))
        with pytest.raises(PartMismatchError, match=says):
            VisionTower(tower.path, spec, tower.row_width).load()


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_greedy_continuations_are_the_references(engines: Engines, engine: str) -> None:
    check_continuations(engines, engine, kl_max=1e-7)


def test_four_bit_bundle_runs_and_is_verified(tmp_path: Path) -> None:
    sections = {"type": "mrope", "mrope_section": [4, 6, 6]}
    source = make_tiny_qwen2_5_vl(
        tmp_path / "source", tied=False, hidden_size=128, intermediate_size=256, rope_scaling=sections
    )
    out = tmp_path / "four.edge"
    _, answers = four_bits(source, out, size=(170, 133), cosine=0.98)
    assert [answer.images[0].tokens for answer in answers] == [30, 30]
    for window in (7, 258):
        damaged = json.loads((out / "bundle.json").read_text(encoding="utf-8"))
        damaged["vision"]["patches"]["window"] = window
        (out / "bundle.json").write_text(json.dumps(damaged), encoding="utf-8")
        with pytest.raises(BundleError, match=rf"vision\.patches\.window: {window}, a multiple of 2 up to 256"):
            open_bundle(out)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"window_size": 20}, r"config.json.*vision_config.window_size.*20 pixels"),
        ({"fullatt_block_indexes": [1, 4]}, r"config.json.*fullatt_block_indexes.*has 4 layers"),
        ({"spatial_merge_size": 4}, r"preprocessor_config.json.*merge_size"),
    ],
)
def test_hostile_settings_name_file_and_field(checkpoint: Path, tmp_path: Path, change: dict, says: str) -> None:
    opened = open_checkpoint(changed_copy(checkpoint, tmp_path, "config.json", change, "vision_config"))
    check_refused(opened, says, "vision")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fullatt_block_indexes": [0, 3]}, r"fullatt_block_indexes.*every n-th layer"),
        ({"fullatt_block_indexes": []}, r"fullatt_block_indexes.*every n-th layer"),
        ({"window_size": 56}, r"window_size.*can only write 112"),
    ],
)
def test_what_libmtmd_cannot_do_is_refused(checkpoint: Path, tmp_path: Path, change: dict, says: str) -> None:
    opened = open_checkpoint(changed_copy(checkpoint, tmp_path, "config.json", change, "vision_config"))
    family = find_family(opened)
    family.vision(opened)
    assert family.mmproj is not None
    with pytest.raises(EdgeMLLMError, match=says):
        family.mmproj.keys(opened)
