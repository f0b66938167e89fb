"""MiniCPM-V 2.6, 4.0 and 4.5: slices, pixels, ids, positions, tower and both engines against the publisher's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_engines import Engines, check_continuations, check_tower, four_bits, told_of_phones
from family_makers import changed_copy, check_missing_tensor
from family_parity import (
    GOLDEN_SIZES,
    Pair,
    _golden_rows,
    check_sizes,
    compare_conversation,
    compare_pictures,
    seeded_sizes,
)
from tiny_minicpm_v import make_tiny_minicpm_v, make_tiny_minicpm_v_2_6, make_tiny_minicpm_v_4_5

from edge_mllm.bundle.spec import PatchInput
from edge_mllm.bundle.tilers import AdaptiveSlices
from edge_mllm.errors import EdgeMLLMError, EngineError, ImageError
from edge_mllm.picture.patches import patch_positions
from edge_mllm.picture.tile_plan import fit_tiler, low_detail, plan_tiles
from edge_mllm.prompt.template import ChatTemplate
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.families.registry import find_family

PUBLISHED = AdaptiveSlices(tile=448, patch=14, max_slices=9)
MAKERS = {"2.6": make_tiny_minicpm_v_2_6, "4.0": make_tiny_minicpm_v, "4.5": make_tiny_minicpm_v_4_5}
RELEASES = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_minicpm_v(tmp_path_factory.mktemp("tiny") / "minicpm")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The published sizes of slices and patches, with few queries."""
    return Pair(make_tiny_minicpm_v(tmp_path_factory.mktemp("tiny") / "minicpm448", scale=448, side=70))


def test_the_papers_example() -> None:
    """1344 x 1344, the largest picture of the paper's: nine slices of 448 x 448 after the whole, 640 tokens."""
    plan = plan_tiles(1344, 1344, PUBLISHED)
    assert (plan.rows, plan.cols, plan.count, plan.tile_size) == (3, 3, 10, (448, 448))
    assert plan.global_first and plan.tokens(64) == 640
    assert plan.grids == ((32, 32),) * 10


def test_slices_follow_the_pictures_shape() -> None:
    plan = plan_tiles(1080, 2400, PUBLISHED)
    assert (plan.rows, plan.cols) == (4, 2)
    assert plan.grids is not None and len(set(plan.grids)) == 2
    for rows, cols in plan.grids:
        assert 700 < rows * cols < 1200 and rows > cols
    small = plan_tiles(40, 20, PUBLISHED)
    assert small.count == 1 and small.grids == ((23, 45),)


def test_grids_and_sizes_equal_the_publishers(pair: Pair) -> None:
    cutter = pair.processor.image_processor
    for size in [(1, 1), (1, 1000), (1000, 1), (448, 448), (449, 448), *seeded_sizes(1500, longest=5000)]:
        plan, grid = plan_tiles(*size, PUBLISHED), cutter.grid(size)
        assert (plan.cols, plan.rows) == (grid or (1, 1)), size
        assert plan.has_global == (grid is not None)


def test_fewer_slices_on_demand() -> None:
    for most in range(1, 11):
        assert plan_tiles(1080, 2400, fit_tiler(PUBLISHED, 1080, 2400, most)).count <= most
    assert plan_tiles(1080, 2400, low_detail(PUBLISHED, 1080, 2400)).tokens(64) == 64


def test_strips_are_refused() -> None:
    with pytest.raises(ImageError, match="more than 1024 times the other"):
        plan_tiles(1, 1025, PUBLISHED)


def test_twenty_four_sizes_equal_the_publishers(pair: Pair) -> None:
    check_sizes(pair)


def test_goldens(pair: Pair) -> None:
    for row in _golden_rows(pair, GOLDEN_SIZES):
        plan = plan_tiles(row["width"], row["height"], PUBLISHED)
        assert [plan.rows, plan.cols] == row["grid"]
        assert sum(rows * cols for rows, cols in plan.grids or ()) == row["tiles"]
        assert plan.tokens(9) == row["tokens"]


@RELEASES
@pytest.mark.parametrize("count", [0, 1, 3])
def test_ids_with_pictures(make: Callable[[Path], Path], tmp_path: Path, count: int) -> None:
    found = compare_pictures(Pair(make(tmp_path / "tiny")), count, "Which is larger? <|im_end|> café\n<image_id>")
    assert len(found.ours) == count


def test_numbers_of_pictures_and_rows(pair: Pair) -> None:
    """Pictures are counted from 0 through a conversation, also behind a system message and earlier turns."""
    text, visual = compare_conversation(pair, [(900, 700), (50, 60), (300, 1500)]), "<unk>" * 9
    assert f"<image_id>1</image_id><image>{visual}</image>\n" in text
    assert f"</slice>\n<slice>{visual}</slice>" in text
    assert "</slice>\n\n" not in text


def test_a_user_may_write_the_marks(pair: Pair) -> None:
    """Neither the picture's place nor the image token in a text claims a place in the prompt."""
    from edge_mllm.prompt.build import build_prompt

    messages = [{"role": "user", "content": "Why (<image>./</image>) and <unk>?"}]
    built = build_prompt(messages, [], pair.spec, pair.tokenizer, pair.template)
    assert built.slots == () and "(<image>./</image>) and" in built.text


def test_answers_begin_without_thinking(tmp_path: Path) -> None:
    """4.5's ``chat`` tells its template so; a user's own template variable is not asked."""
    checkpoint = open_checkpoint(make_tiny_minicpm_v_4_5(tmp_path / "tiny"))
    template = ChatTemplate(find_family(checkpoint).chat_template(checkpoint))
    assert template.render([{"role": "user", "content": "Hi"}], {}).endswith("<think>\n\n</think>\n\n")


@pytest.mark.parametrize("side", [70, 10])
def test_places_in_the_table_are_the_publishers(side: int) -> None:
    """Every number of rows up to a thousand: also where a fraction falls on the edge of a bucket."""
    import torch

    from edge_mllm_export.families.minicpm_v.model import table_places
    from edge_mllm_export.families.minicpm_v.tower import Tower

    class Places(Tower):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.register_buffer("boundaries", torch.arange(1 / side, 1.0, 1 / side))

    ours = Places()
    for count in range(1, 1001):
        expected = table_places((count, 1), side) // side
        assert torch.equal(ours._bucket(torch.arange(count)), expected), count
    assert table_places((2, 3), 70).tolist() == [0, 23, 46, 35 * 70, 35 * 70 + 23, 35 * 70 + 46]


def test_positions_of_keys() -> None:
    """Columns before rows, sines before cosines."""
    from edge_mllm_export.families.minicpm_v.model import key_positions

    found = key_positions(8, (2, 2))
    waves = np.array([np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)], np.float32)
    still = np.array([0, 0, 1, 1], np.float32)
    np.testing.assert_allclose(found[1], np.concatenate([waves, still]), rtol=1e-6)
    np.testing.assert_allclose(found[2], np.concatenate([still, waves]), rtol=1e-6)


@pytest.fixture(scope="module")
def engines(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(checkpoint, tmp_path_factory.mktemp("bundle") / "minicpm.edge")


def test_tower_equals_torch(engines: Engines) -> None:
    check_tower(engines)


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_greedy_continuations_are_the_references(engines: Engines, engine: str) -> None:
    check_continuations(engines, engine)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2.6", "4.5"])
def test_other_releases_with_both_engines(version: str, tmp_path: Path) -> None:
    engines = Engines(MAKERS[version](tmp_path / "tiny"), tmp_path / "minicpm.edge")
    check_tower(engines)
    check_continuations(engines, "onnx")
    check_continuations(engines, "gguf")


def test_any_shape_of_slice(engines: Engines, checkpoint: Path) -> None:
    """Rows and columns that no picture of the other tests has, among them one patch and single rows."""
    import torch

    from edge_mllm_export.families.minicpm_v.model import MiniCPMVForCausalLM

    model = MiniCPMVForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    draw, patches = np.random.default_rng(0), PatchInput(patch=14, merge=1, pooled=True)
    for grid in [(1, 1), (1, 25), (49, 1), (7, 50)]:
        pixels = draw.normal(size=(grid[0] * grid[1], patches.values)).astype(np.float32)
        with torch.inference_mode():
            expected = model.slice_embeddings(torch.from_numpy(pixels), grid).numpy()
        found = engines.candidate.tower.encode(pixels, grids=[grid]).embeddings[0]
        assert np.abs(found - expected).max() < 1e-4, grid
        assert len(patch_positions(grid, patches)) == len(pixels)
    with pytest.raises(EngineError, match="for 2x2 patches"):
        engines.candidate.tower.encode(pixels, grids=[(2, 2)])
    with pytest.raises(EngineError, match="got 0 tiles"):
        engines.candidate.tower.encode(pixels)


def test_reductions_know_that_rows_have_no_place(engines: Engines) -> None:
    """A picture's blank slices may be left out; its rows are answers to queries and cannot be pooled by place."""
    import edge_mllm

    rgb = np.full((100, 300, 3), 200, np.uint8)
    rgb[:, :60] = np.random.default_rng(1).integers(0, 255, (100, 60, 3), np.uint8)
    with edge_mllm.load(engines.out, engine="onnx", threads=1) as model:
        whole = model.generate("What is it?", images=[rgb], max_new_tokens=2)
        fewer = model.generate("What is it?", images=[rgb], max_new_tokens=2, reduction="blank")
        assert 1 < fewer.images[0].tiles < whole.images[0].tiles
        assert fewer.usage.image_tokens == 9 * fewer.images[0].tiles
        with pytest.raises(EdgeMLLMError, match="does not tell"):
            model.generate("What is it?", images=[rgb], max_new_tokens=2, reduction="pool:0.5")


def test_a_phone_is_told_not_to_run_it(engines: Engines) -> None:
    assert told_of_phones(engines).startswith("no, slices")


@pytest.mark.slow
def test_four_bit_bundle_runs_and_is_verified(checkpoint: Path, tmp_path: Path) -> None:
    spec, answers = four_bits(checkpoint, tmp_path / "four.edge")
    assert all(answer.usage.image_tokens == 9 * answer.images[0].tiles for answer in answers)
    assert "openbmb/MiniCPM-V" in spec.verification["processor"]["written_from"]
    document = json.loads((tmp_path / "four.edge" / "bundle.json").read_text(encoding="utf-8"))
    assert document["image"]["tiler"] == {"kind": "adaptive_slices", "tile": 56, "patch": 14, "max_slices": 9}
    for change, says in (
        ({"patch": 7, "merge": 2, "pooled": True}, r"vision\.patches: image\.tiler has units of 14"),
        ({"patch": 14, "merge": 1, "pooled": False}, r"vision\.patches does not go with"),
    ):
        vision = document["vision"] | {"patches": document["vision"]["patches"] | change}
        changed = json.dumps(document | {"vision": vision})
        (tmp_path / "four.edge" / "bundle.json").write_text(changed, encoding="utf-8")
        with pytest.raises(EdgeMLLMError, match=says):
            _load(tmp_path / "four.edge")


def _load(path: Path) -> None:
    import edge_mllm

    edge_mllm.load(path, engine="onnx", threads=1)


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("preprocessor_config.json", {"slice_mode": False}, r"preprocessor_config.json.*slice_mode"),
        ("preprocessor_config.json", {"patch_size": 16}, r"preprocessor_config.json.*patch_size.*model has 14"),
        ("preprocessor_config.json", {"image_feature_size": 64}, r"preprocessor_config.json.*image_feature_size"),
        ("preprocessor_config.json", {"scale_resolution": 8}, r"preprocessor_config.json.*scale_resolution"),
        ("preprocessor_config.json", {"max_slice_nums": 0}, r"preprocessor_config.json.*max_slice_nums"),
        ("preprocessor_config.json", {"max_slice_nums": "9"}, r"preprocessor_config.json.*max_slice_nums"),
        ("preprocessor_config.json", {"norm_std": [0, 1, 1]}, r"preprocessor_config.json.*norm_std"),
        ("preprocessor_config.json", {"norm_mean": 0.5}, r"preprocessor_config.json.*norm_mean"),
        ("preprocessor_config.json", {"slice_start": "<part>"}, r"token <part> is missing"),
        ("preprocessor_config.json", {"unk": 3}, r"preprocessor_config.json.*unk"),
        ("config.json", {"version": 2.5}, r"config.json.*version.*2.6, 4.0, 4.5"),
        ("config.json", {"version": None}, r"config.json.*version"),
        ("config.json", {"scale_emb": 12}, r"config.json.*scale_emb"),
        ("config.json", {"scale_depth": 1.4}, r"config.json.*scale_depth"),
        ("config.json", {"tie_word_embeddings": True}, r"config.json.*tie_word_embeddings"),
        ("config.json", {"drop_vision_last_layer": True}, r"config.json.*drop_vision_last_layer"),
        ("config.json", {"hidden_size": 200}, r"config.json.*hidden_size.*128"),
        ("config.json", {"hidden_size": "256"}, r"config.json.*hidden_size"),
        ("config.json", {"query_num": -1}, r"config.json.*query_num"),
        ("config.json", {"vocab_size": 100}, r"config.json.*vocab_size"),
        ("config.json", {"vision_config": {"patch_size": 0}}, r"config.json.*patch_size"),
        ("config.json", {"vision_config": {"hidden_size": "wide"}}, r"config.json.*hidden_size"),
    ],
)
def test_hostile_settings_name_file_and_field(
    checkpoint: Path, tmp_path: Path, file: str, change: dict[str, Any], says: str
) -> None:
    changed_copy(checkpoint, tmp_path, file, change)
    with pytest.raises(EdgeMLLMError, match=says):
        opened = open_checkpoint(tmp_path)
        family = find_family(opened)
        (family.image(opened), family.vision(opened), family.prompt(opened))


@pytest.mark.parametrize("name", ["resampler.query", "vpm.post_layernorm.weight", "llm.lm_head.weight"])
def test_a_missing_tensor_is_named(checkpoint: Path, tmp_path: Path, name: str) -> None:
    check_missing_tensor(checkpoint, tmp_path, name)
