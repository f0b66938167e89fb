"""MiniCPM-V 4.6's bundles: tower and both engines against transformers, and what the runtime does with such slices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_engines import Engines, check_continuations, check_hostile_bundle, check_tower, four_bits, told_of_phones
from tiny_minicpm_v_4_6 import make_tiny_minicpm_v_4_6

import edge_mllm
from edge_mllm.bundle.spec import PatchInput
from edge_mllm.bundle.spec_json import read_spec, spec_to_dict
from edge_mllm.bundle.tilers import AdaptiveSlices
from edge_mllm.errors import EngineError
from edge_mllm.picture.tile_plan import plan_tiles
from edge_mllm.session.files import open_bundle
from edge_mllm_export.reference.strips import unrolled

PUBLISHED = AdaptiveSlices(tile=448, patch=14, max_slices=9, merge=4)
PLAIN = replace(PUBLISHED, merge=None)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_minicpm_v_4_6(tmp_path_factory.mktemp("tiny") / "minicpm46")


@pytest.fixture(scope="module")
def engines(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(checkpoint, tmp_path_factory.mktemp("bundle") / "minicpm46.edge")


def test_tower_equals_torch(engines: Engines) -> None:
    """Of pictures with slices, and of one with wider slices than the whole."""
    check_tower(engines)
    plans = [picture.plan for item in engines.prepared for picture in item.pictures]
    assert sum(plan.has_global for plan in plans) >= 3
    assert any(len(set(plan.tile_tokens(1))) > 1 for plan in plans)


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_greedy_continuations_are_the_references(engines: Engines, engine: str) -> None:
    check_continuations(engines, engine, kl_max=1e-7)


@pytest.mark.slow
def test_four_times_the_tokens_with_both_engines(tmp_path: Path) -> None:
    """The layer that makes four patches one is not in the graph then."""
    engines = Engines(make_tiny_minicpm_v_4_6(tmp_path / "tiny", mode="4x"), tmp_path / "fine.edge")
    check_tower(engines)
    check_continuations(engines, "onnx", kl_max=1e-7)
    check_continuations(engines, "gguf", kl_max=1e-7)


def test_any_shape_of_slice(engines: Engines, checkpoint: Path) -> None:
    """Rows and columns that no picture of the other tests has, alone and as tiles of one picture."""
    import torch
    from transformers import MiniCPMV4_6ForConditionalGeneration

    model = MiniCPMV4_6ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    draw, patches, made = np.random.default_rng(0), PatchInput(patch=14, merge=4), []
    grids = [(1, 1), (1, 9), (13, 1), (2, 7)]
    for rows, cols in grids:
        strip = draw.normal(size=(1, 3, 14, rows * cols * 16 * 14)).astype(np.float32)
        sizes = torch.tensor([[rows * 4, cols * 4]], dtype=torch.int32)
        with torch.inference_mode():
            expected = model.get_image_features(torch.from_numpy(strip), sizes).pooler_output[0].numpy()
        made.append((unrolled(strip, sizes.numpy(), patches), expected))
        found = engines.candidate.tower.encode(made[-1][0], grids=[(rows, cols)]).rows
        assert np.abs(found - expected).max() < 1e-4, (rows, cols)
    whole = engines.candidate.tower.encode(np.concatenate([pixels for pixels, _ in made]), grids=grids).rows
    assert np.abs(whole - np.concatenate([rows for _, rows in made])).max() < 1e-4
    with pytest.raises(EngineError, match="for 2x2 visual tokens"):
        engines.candidate.tower.encode(made[0][0], grids=[(2, 2)])
    with pytest.raises(EngineError, match="got 0 tiles"):
        engines.candidate.tower.encode(made[0][0])


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_a_second_question_costs_its_own_tokens(engines: Engines, engine: Any) -> None:
    rgb = np.random.default_rng(1).integers(0, 255, (120, 300, 3), np.uint8)
    kind = "f32" if engine == "gguf" else None
    with edge_mllm.load(engines.out, engine=engine, threads=1, kv_type=kind) as model:
        model.generate("What is it?", images=[rgb], max_new_tokens=4)
        second = model.generate("Which?", images=[rgb], max_new_tokens=6)
    with edge_mllm.load(engines.out, engine=engine, threads=1, kv_type=kind) as model:
        cold = model.generate("Which?", images=[rgb], max_new_tokens=6)
    assert second.images[0].source == "kv" and second.usage.reused_tokens > second.usage.image_tokens
    assert second.text == cold.text


def test_reductions_know_where_tokens_lie(engines: Engines) -> None:
    """Blank slices may be left out, and tokens are averaged within the whole and within each slice."""
    rgb = np.full((100, 600, 3), 200, np.uint8)
    rgb[:, :150] = np.random.default_rng(1).integers(0, 255, (100, 150, 3), np.uint8)
    with edge_mllm.load(engines.out, engine="onnx", threads=1) as model:
        whole = model.generate("What is it?", images=[rgb], max_new_tokens=2)
        fewer = model.generate("What is it?", images=[rgb], max_new_tokens=2, reduction="blank")
        pooled = model.generate("What is it?", images=[rgb], max_new_tokens=2, reduction="pool:1/4")
    assert 1 < fewer.images[0].tiles < whole.images[0].tiles
    assert fewer.usage.image_tokens < whole.usage.image_tokens
    assert pooled.usage.image_tokens < whole.usage.image_tokens


def test_what_clients_are_told_of_tiles(engines: Engines) -> None:
    """Tokens of a tile are told where all tiles have as many."""
    from edge_mllm.answer.pictures.bundle_picture import PicturePart
    from edge_mllm.picture.header import PictureHeader
    from edge_mllm.serve.work.tilings import tilings

    spec = open_bundle(engines.out).spec
    shown = [PicturePart.planned(PictureHeader.plain(*size), spec.image.tiler, spec) for size in ((300, 300), (40, 40))]
    assert len({area.tokens for area in shown[0].areas}) == 1
    first, second = tilings(shown)
    assert (first or {})["tokens_per_tile"] == shown[0].areas[0].tokens
    assert (second or {})["tokens_per_tile"] == shown[1].tokens
    (other,) = tilings([PicturePart.planned(PictureHeader.plain(1080, 2400), PUBLISHED, spec)])
    assert other is not None and other["tokens_per_tile"] is None


def test_a_phone_is_told_not_to_run_it(engines: Engines) -> None:
    assert told_of_phones(engines).startswith("no, slices")


def test_bundles_of_equal_slices_do_not_have_the_field(engines: Engines) -> None:
    spec = open_bundle(engines.out).spec
    assert spec.decoder.positions == "sequential" and spec.decoder.axes == 3
    assert spec_to_dict(spec)["image"]["tiler"]["merge"] == 4
    assert read_spec(spec_to_dict(spec)) == spec
    plain = replace(spec, image=replace(spec.image, tiler=PLAIN))
    assert "merge" not in spec_to_dict(plain)["image"]["tiler"]


@pytest.mark.parametrize(
    ("section", "change", "says"),
    [
        ("tiler", {"merge": 2}, r"vision\.patches: image\.tiler has units of 28 pixels, 2x2 patches each"),
        ("tiler", {"merge": 0}, r"image\.tiler\.merge: 0 is not a sane size"),
        ("tiler", {"merge": None}, r"vision\.patches does not go with the tiler"),
        ("tiler", {"tile": 40}, r"vision\.patches: image\.tiler has units of 56"),
        ("patches", {"pooled": True}, r"vision\.patches does not go with the tiler"),
        ("patches", {"window": 4}, r"no windows"),
        ("vision", {"tile_width": 112}, r"cuts 56x56 tiles but vision takes 112x56"),
    ],
)
def test_hostile_bundles_name_the_field(
    engines: Engines, tmp_path: Path, section: str, change: dict[str, Any], says: str
) -> None:
    check_hostile_bundle(engines, tmp_path / "changed.edge", section, change, says)


@pytest.mark.slow
def test_four_bit_bundle_runs_and_is_verified(tmp_path: Path) -> None:
    sizes = {"hidden_size": 128, "intermediate_size": 256}
    kinds = ("linear_attention", "full_attention")
    source = make_tiny_minicpm_v_4_6(tmp_path / "source", tied=False, layers=kinds, **sizes)
    spec, answers = four_bits(source, tmp_path / "four.edge")
    assert spec.verification["processor"]["image_processor"] == "MiniCPMV4_6ImageProcessorPil"
    tokens = plan_tiles(70, 33, spec.image.tiler).tokens(1)
    assert [answer.images[0].tokens for answer in answers] == [tokens, tokens]
