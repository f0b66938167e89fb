"""Every field that the reference's image processor reads, null and absent included; counts that contradict a model.

What is taken here gives the reference's pixels and ids; all else is refused by file and field.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from family_makers import make_tiny
from family_parity import Pair
from image_settings import picture
from processor_settings import ABSENT, FAMILIES, Settings
from typer.testing import CliRunner

from edge_mllm.cli.main import app
from edge_mllm_export import ExportOptions, export_bundle
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.registry import find_family

STEPS = ("do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_pad", "do_convert_rgb", "do_image_splitting")
FIELDS = (
    *("do_resize", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample", "size"),
    *("crop_size", "do_center_crop", "do_pad", "pad_size", "do_convert_rgb", "default_to_square"),
    *("do_image_splitting", "max_image_size", "min_patches", "max_patches", "crop_to_patches"),
    *("min_pixels", "max_pixels", "patch_size", "merge_size", "temporal_patch_size"),
    *("image_grid_pinpoints", "do_pan_and_scan", "image_processor_type", "data_format"),
)
UNUSABLE_DEFAULTS = {"idefics3": {"size", "max_image_size"}}
"""Fields whose absence makes more tiles than any model takes, with a tiny checkpoint's tile."""


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(request.param, tmp_path_factory.mktemp("settings"))


@pytest.mark.parametrize("value", [None, ABSENT])
def test_null_and_absent_are_the_references(family: Settings, value: Any) -> None:
    """One field at a time."""
    taken = []
    for name in FIELDS:
        if name in UNUSABLE_DEFAULTS.get(family.family, ()):
            continue
        found = family.compare({name: value})
        if found.ours is not None:
            named = {name, *({"image_grid_pinpoints"} if name == "size" else ())}  # in whole tiles of that size
            assert found.ours.field in named or name in str(found.ours), (name, found.ours)
            continue
        assert found.equal, (name, found.theirs)
        taken.append(name)
    family.restored()
    assert {"do_normalize", "do_rescale", "do_convert_rgb"} <= set(taken)


@pytest.mark.parametrize("family_name", ["llava", "idefics3", "qwen2_vl"])
def test_a_step_of_null_is_off(family_name: str, tmp_path: Path) -> None:
    """Pixels are those of ``false``, not those of the class's default."""
    directory = make_tiny(family_name, tmp_path)
    file = directory / "preprocessor_config.json"
    published = json.loads(file.read_text(encoding="utf-8"))
    pixels = {}
    for value in (True, None, False):
        file.write_text(json.dumps(published | {"do_normalize": value}), encoding="utf-8")
        (ours,) = Pair(directory).compare([picture(40, 30)]).ours
        pixels[value] = ours.pixels
    assert (pixels[None] == pixels[False]).all() and not (pixels[None] == pixels[True]).all()


SIDE = 32
SQUARE, SHORTER = {"height": SIDE, "width": SIDE}, {"shortest_edge": SIDE}
ONE_TILE = {
    "pads, and never stretches": ({"do_pad": True, "size": SQUARE, "do_center_crop": False}, True, "pad"),
    "pads before the shorter side": ({"do_pad": True, "size": SHORTER, "do_center_crop": False}, True, "pad"),
    "pads and crops nothing": ({"do_pad": True, "size": SHORTER, "crop_size": SQUARE}, True, "pad"),
    "crops": ({"do_pad": False, "size": SHORTER, "crop_size": SIDE}, True, "crop"),
    "stretches": ({"do_pad": None, "size": SQUARE, "do_center_crop": None}, True, "stretch"),
    "crops nothing of a stretched one": ({"do_pad": None, "size": SQUARE, "crop_size": SQUARE}, True, "stretch"),
    "keeps its shape": ({"do_pad": False, "size": SHORTER, "do_center_crop": None}, False, "do_center_crop"),
    "is cut smaller": ({"size": SHORTER, "crop_size": {"height": 24, "width": 24}}, False, "crop_size"),
    "is cut out of nothing": ({"do_center_crop": True, "crop_size": None}, False, "crop_size"),
    "is no square": ({"size": {"height": SIDE, "width": 2 * SIDE}, "do_center_crop": False}, False, "size"),
    "has no size": ({"size": None}, False, "size"),
    "is not resized": ({"do_resize": None}, False, "do_resize"),
}
"""What LLaVA's own class makes of one tile -> fields, whether that is exported, and the fit or the field."""


@pytest.mark.parametrize("case", ONE_TILE)
def test_every_way_to_one_tile(case: str, tmp_path: Path) -> None:
    change, exported, says = ONE_TILE[case]
    settings = Settings("llava", tmp_path)
    found = settings.compare({"image_processor_type": "LlavaImageProcessor", **change})
    if exported:
        assert found.equal, found
        checkpoint = open_checkpoint(settings.directory)
        assert find_family(checkpoint).image(checkpoint).tiler.fit == says  # type: ignore[union-attr]
    else:
        assert found.ours is not None and found.ours.field == says


@pytest.mark.parametrize("kind", ["ViTImageProcessor", "MiniCPMVImageProcessor"])
def test_another_image_processor_is_named(family: Settings, kind: str) -> None:
    found = family.compare({"image_processor_type": kind})
    family.restored()
    assert found.ours is not None
    assert f'image_processor_type: is "{kind}", known here: ' in str(found.ours)


def test_nested_settings_are_named_where_they_are(tmp_path: Path) -> None:
    directory = make_tiny("llava", tmp_path)
    nested = json.loads((directory / "preprocessor_config.json").read_text(encoding="utf-8")) | {"do_resize": None}
    (directory / "processor_config.json").write_text(json.dumps({"image_processor": nested}), encoding="utf-8")
    checkpoint = open_checkpoint(directory)
    with pytest.raises(CheckpointError, match=r"'processor_config.json', image_processor.do_resize: is null"):
        find_family(checkpoint).image(checkpoint)


COUNTS: dict[str, tuple[dict[str, Any], str]] = {
    "llava": ({"num_additional_image_tokens": 7}, "is 7, the model's 1 is used"),
    "llava_next": ({"vision_feature_select_strategy": "full"}, "is 'full', the model's 'default' is used"),
    "llava_onevision": ({"num_image_tokens": 99}, "is 99, the model's 16 is used"),
    "internvl": ({"image_seq_length": 9}, "is 9, the model's 4 is used"),
    "gemma3": ({"image_seq_length": 9}, "is 9, the model's 16 is used"),
    "idefics3": ({"image_seq_len": 9}, "is 9, the model's 4 is used"),
}


@pytest.mark.parametrize("family_name", COUNTS)
def test_counts_that_contradict_the_model_are_told_and_the_models_are_used(family_name: str, tmp_path: Path) -> None:
    change, says = COUNTS[family_name]
    directory = make_tiny(family_name, tmp_path)
    checkpoint = open_checkpoint(directory)
    kind = find_family(checkpoint)
    assert kind.decided(checkpoint) == ()
    file = directory / "processor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")
    checkpoint = open_checkpoint(directory)
    assert [f"processor_config.json, {name}: {says}" for name in change] == list(kind.decided(checkpoint))
    found = Pair(directory).compare([picture(60, 40)])
    assert found.ids_equal and found.pixels_equal


def test_what_was_decided_is_said_in_the_export_and_by_inspect(tiny_smolvlm: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_smolvlm, tmp_path / "model"))
    file = directory / "processor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"image_seq_len": 9}), encoding="utf-8")
    said: list[str] = []
    out = tmp_path / "out.edge"
    options = ExportOptions(format="gguf", quant="f32", vision="fp32", verify=False)
    spec = export_bundle(str(directory), out, options, said.append)
    sentence = "processor_config.json, image_seq_len: is 9, the model's 4 is used"
    assert sentence in said
    assert spec.recipe["decided"] == {"sentences": [sentence]}
    done = CliRunner().invoke(app, ["inspect", str(out)])
    assert done.exit_code == 0
    assert f"decided: {sentence}" in done.stdout
