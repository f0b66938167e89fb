"""``--quant auto``: limits, the choice from what was measured, and the whole way on a tiny checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edge_mllm.bundle_files import open_bundle
from edge_mllm.cli.export import read_size
from edge_mllm.errors import SettingError
from edge_mllm_export import ExportOptions, export_bundle, parse_override, pipeline, sweep
from edge_mllm_export.calibration import read_calibration, split_probes
from edge_mllm_export.checkpoint import open_checkpoint
from edge_mllm_export.families import find_family
from edge_mllm_export.options import choose_recipes
from edge_mllm_export.parts import Job
from edge_mllm_export.sweep import Measured, Sweep, choose, mixed_recipe
from edge_mllm_export.sweep_report import plot, table
from edge_mllm_export.task import resolve_task
from edge_mllm_quant.mixture import MixtureError
from edge_mllm_quant.recipe import find_recipe


def _measured(component: str, name: str, size: int, loss: float) -> Measured:
    return Measured(component, find_recipe(component, name), size, loss)


FOUND = [
    _measured("vision", "int4", 40, 0.030),
    _measured("vision", "int8", 70, 0.010),
    _measured("vision", "fp16", 140, 0.0),
    _measured("gguf", "q4_0", 100, 0.040),
    _measured("gguf", "q4_k_m", 115, 0.020),
    _measured("gguf", "q8_0", 190, 0.001),
    _measured("onnx", "int4_b32", 120, 0.050),
    _measured("onnx", "int8_b32", 210, 0.002),
]


def _names(**limits: float | None) -> dict[str, str]:
    full = {"max_bytes": None, "max_loss": None, **limits}
    return {part: item.recipe.name for part, item in choose(FOUND, **full).items()}


def test_the_cheapest_within_the_loss_for_both_engines() -> None:
    assert _names(max_loss=0.081) == {"vision": "int4", "gguf": "q4_0", "onnx": "int4_b32"}
    assert _names(max_loss=0.061) == {"vision": "int8", "gguf": "q4_0", "onnx": "int4_b32"}
    # 465 bytes; an int8 tower would need 8 bits in both decoders, 470 bytes
    assert _names(max_loss=0.02) == {"vision": "fp16", "gguf": "q4_k_m", "onnx": "int8_b32"}


def test_the_least_loss_within_the_size() -> None:
    assert _names(max_bytes=160) == {"vision": "int4", "gguf": "q4_k_m", "onnx": "int4_b32"}
    assert _names(max_bytes=400) == {"vision": "fp16", "gguf": "q8_0", "onnx": "int8_b32"}


def test_limits_that_cannot_be_kept_say_what_can_be_had() -> None:
    with pytest.raises(MixtureError, match="the smallest mixture has 160"):
        _names(max_bytes=150)
    with pytest.raises(MixtureError, match=r"loses at most 0\.0001 nats"):
        _names(max_loss=0.0001)


def test_a_mixture_is_a_recipe_with_exceptions() -> None:
    recipe = mixed_recipe({"head": "q6_k", "attention": "q8_0", "feed-forward down": "q4_0"})
    assert (recipe.name, recipe.base, recipe.head) == ("mixed", "q8_0", "q6_k")
    assert recipe.overrides == ("head=q6_k", "blk.*.ffn_down=q4_0") and recipe.calibrated


def test_reports_name_everything() -> None:
    chosen = choose(FOUND, None, 0.061)
    rows = ({"part": "head", "type": "q4_0", "bytes": 10, "loss": 0.5},)
    text = table(Sweep(tuple(FOUND), rows, chosen, 3, 30))
    assert "| gguf | `q4_0` | 0.00 | 0.04000 | yes |" in text and "| head | q4_0 | 0.00 | 0.50000 |" in text
    drawn = ElementTree.fromstring(plot(FOUND, [*chosen.values()]))
    circles = drawn.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == len(FOUND)
    assert sum(circle.get("fill") != "none" for circle in circles) == 3


@pytest.mark.parametrize(
    ("text", "size"), [("300MB", 300_000_000), ("1.5 gb", 1_500_000_000), ("2MiB", 2 << 20), ("9", 9)]
)
def test_sizes(text: str, size: int) -> None:
    assert read_size(text) == size


def test_what_cannot_be_followed_is_refused() -> None:
    with pytest.raises(SettingError, match="'300 apples' is no size"):
        read_size("300 apples")
    with pytest.raises(SettingError, match="needs a limit"):
        choose_recipes(ExportOptions(quant="auto"))
    with pytest.raises(SettingError, match="are for --quant auto"):
        choose_recipes(ExportOptions(max_loss=0.1))
    with pytest.raises(SettingError, match="chooses the exceptions itself"):
        choose_recipes(ExportOptions(quant="auto", max_loss=0.1, overrides=(parse_override("head=q4_0"),)))


def test_random_weights_are_refused(tiny_smolvlm: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_smolvlm, id="shape:tiny", random_weights=True)
    family = find_family(checkpoint)
    options = ExportOptions(format="gguf", quant="auto", max_loss=0.1)
    job = Job(checkpoint, family, choose_recipes(options), tmp_path, tmp_path)
    with pytest.raises(SettingError, match="the loss of random weights means nothing; name a recipe"):
        pipeline._chosen(job, resolve_task(checkpoint, family), options, lambda _: None)


def test_nothing_is_measured_with_what_was_calibrated_with() -> None:
    split = split_probes()
    assert len(split.calibrate) + len(split.measure) == len(read_calibration())
    seen = {probe.pictures[0].tobytes() for probe in split.calibrate}
    assert not any(probe.pictures[0].tobytes() in seen for probe in split.measure)


def test_the_whole_way(tiny_smolvlm_tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer types and prompts than in earnest."""
    monkeypatch.setattr(sweep, "TYPES", ("q4_0", "q8_0"))
    monkeypatch.setattr(sweep, "FIXED", {"gguf": ("q4_0",), "onnx": (), "vision": ("int8", "int4")})
    monkeypatch.setattr(sweep, "_MIXTURES", 2)
    monkeypatch.setattr("edge_mllm_export.sweep_ground.MOST_POSITIONS", 100)
    monkeypatch.setattr("edge_mllm_export.calibration.MOST_POSITIONS", 100)
    steps: list[str] = []
    options = ExportOptions(format="gguf", quant="auto", max_size=1 << 30, verify=False)
    spec = export_bundle(str(tiny_smolvlm_tied), tmp_path / "x.edge", options, steps.append)
    found = json.loads((tmp_path / "x.edge" / "quantisation.json").read_text())
    assert {row["part"] for row in found["parts"]} == {"head", "attention", "feed-forward up", "feed-forward down"}
    by_part = {(row["part"], row["type"]): row for row in found["parts"]}
    assert by_part["head", "q4_0"]["bytes"] < by_part["head", "q8_0"]["bytes"] and by_part["head", "q8_0"]["loss"] == 0
    decoders = [row for row in found["measured"] if row["component"] == "gguf"]
    assert len(decoders) == 3 and found["chosen"]["gguf"]["loss"] == min(row["loss"] for row in decoders)
    assert found["chosen"]["gguf"]["name"].split()[0] == spec.parts["decoder_gguf"].precision
    assert sum("chosen for" in step for step in steps) == 2
    assert (tmp_path / "x.edge" / "quantisation.svg").is_file() and (tmp_path / "x.edge" / "quantisation.md").is_file()
    open_bundle(tmp_path / "x.edge")
    assert abs((tmp_path / "x.edge" / "decoder.gguf").stat().st_size - found["chosen"]["gguf"]["bytes"]) < 200
