"""``--quant auto``: limits, the choice from what was measured, and the whole way on a tiny checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from edge_mllm.answer.decoding.keys import picture_ends
from edge_mllm.answer.limits import parse_bytes
from edge_mllm.arrays import FloatArray
from edge_mllm.decoders.protocol import Decoder, Segment
from edge_mllm.decoders.segments import lengths as segment_lengths
from edge_mllm.errors import SettingError
from edge_mllm.session.files import open_bundle
from edge_mllm_export import ExportOptions, export_bundle, parse_override
from edge_mllm_export.auto import sweep
from edge_mllm_export.auto.choice import Measured, choose
from edge_mllm_export.auto.gguf import Donors, mixed_recipe
from edge_mllm_export.auto.ground import lay_ground
from edge_mllm_export.auto.report import plot, table
from edge_mllm_export.auto.sweep import Sweep
from edge_mllm_export.calibrate.calibration import gather_moments, read_calibration, split_probes
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.families.task import resolve_task
from edge_mllm_export.gguf.compose import compose_gguf
from edge_mllm_export.gguf.file import GgufError
from edge_mllm_export.gguf.header import read_entries
from edge_mllm_export.job import Job
from edge_mllm_export.options import choose_recipes
from edge_mllm_export.reference.probes import Probe, decoder_probes
from edge_mllm_export.reference.reference import Reference
from edge_mllm_export.write.text_model import write_text_checkpoint
from edge_mllm_quant.recipes.mixture import MixtureError
from edge_mllm_quant.recipes.recipe import find_recipe


def _measured(component: str, name: str, size: int, loss: float) -> Measured:
    return Measured(component, find_recipe(component, name), size, np.full(4, loss / 4))


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


def test_a_mixture_replaces_a_fixed_recipe_only_where_it_is_better_beyond_chance() -> None:
    tower = Measured("vision", find_recipe("vision", "int8"), 10, np.zeros(40))
    fixed = Measured("gguf", find_recipe("gguf", "q4_0"), 100, np.full(40, 0.002))
    lucky, clear = (np.full(40, 0.0019) for _ in range(2))
    lucky[::2], lucky[1::2] = 0.0, 0.0038  # the same mean, by a few prompts only
    for losses, expected in ((lucky, "q4_0"), (clear, "mixed")):
        mixture = Measured("gguf", mixed_recipe({"head": "q4_0"}), 100, losses)
        assert mixture.loss < fixed.loss
        assert choose([tower, fixed, mixture], 200, None)["gguf"].recipe.name == expected
    small = Measured("gguf", mixed_recipe({"head": "q4_0"}), 50, lucky)
    assert choose([tower, fixed, small], 80, None)["gguf"] is small  # the fixed one does not fit
    assert choose([tower, fixed, small], None, 0.08)["gguf"] is small  # the smallest within a loss


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
    assert parse_bytes(text) == size


def test_what_cannot_be_followed_is_refused() -> None:
    with pytest.raises(SettingError, match="got '300 apples'"):
        parse_bytes("300 apples")
    with pytest.raises(SettingError, match="needs a limit"):
        choose_recipes(ExportOptions(quant="auto"))
    with pytest.raises(SettingError, match="are for `quant='auto'`"):
        choose_recipes(ExportOptions(max_loss=0.1))
    with pytest.raises(SettingError, match="chooses the exceptions itself"):
        choose_recipes(ExportOptions(quant="auto", max_loss=0.1, overrides=(parse_override("head=q4_0"),)))


def test_random_weights_are_refused_before_they_are_written(tmp_path: Path) -> None:
    options = ExportOptions(format="gguf", quant="auto", max_loss=0.1)
    steps: list[str] = []
    with pytest.raises(SettingError, match="the loss of random weights means nothing; name a recipe"):
        export_bundle("shape:smolvlm-500m", tmp_path / "x.edge", options, steps.append)
    assert not steps and not [*tmp_path.iterdir()]


def test_put_together_is_what_the_quantiser_writes(tiny_smolvlm_tied: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_smolvlm_tied)
    family = find_family(checkpoint)
    text = write_text_checkpoint(checkpoint, family, tmp_path / "text")
    reference = Reference(checkpoint, family, resolve_task(checkpoint, family))
    moments = gather_moments(reference, decoder_probes()[-1:])
    donors = Donors(text, tmp_path, moments)
    types = {"head": "q6_k", "attention": "q4_0", "feed-forward down": "iq4_nl"}
    mixture, direct = donors.mixture(types), donors.recipe(mixed_recipe(types))
    assert mixture.path.read_bytes() == direct.path.read_bytes() and mixture.tensors == direct.tensors
    assert donors.mixture({}).path.read_bytes() != direct.path.read_bytes()
    other = _renamed(direct.path, tmp_path / "renamed.gguf")
    wanted = [*read_entries(other)][-1]
    with pytest.raises(GgufError, match="it has no tensor nowhere"):
        compose_gguf(other, {wanted: direct.path}, tmp_path / "y.gguf")


def _renamed(path: Path, out: Path) -> Path:
    """A file whose last tensor has another name of the same length."""
    name = [*read_entries(path)][-1]
    out.write_bytes(path.read_bytes().replace(name.encode(), b"nowhere".ljust(len(name), b"_"), 1))
    return out


def test_nothing_is_measured_with_what_was_calibrated_with() -> None:
    split = split_probes()
    assert len(split.calibrate) == len(read_calibration())
    seen = {probe.pictures[0].tobytes() for probe in split.calibrate}
    assert not any(probe.pictures[0].tobytes() in seen for probe in split.measure)


def test_the_whole_way(tiny_smolvlm_tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer types and prompts than in earnest."""
    monkeypatch.setattr(sweep, "TYPES", ("q4_0", "q8_0"))
    monkeypatch.setattr(sweep, "FIXED", {"gguf": ("q4_0",), "onnx": (), "vision": ("int8", "int4")})
    monkeypatch.setattr(sweep, "_MIXTURES", 2)
    monkeypatch.setattr("edge_mllm_export.auto.ground.MOST_POSITIONS", 100)
    monkeypatch.setattr("edge_mllm_export.calibrate.calibration.MOST_POSITIONS", 100)
    steps: list[str] = []
    options = ExportOptions(format="gguf", quant="auto", max_size=1 << 30, verify=False)
    spec = export_bundle(str(tiny_smolvlm_tied), tmp_path / "x.edge", options, steps.append)
    found = json.loads((tmp_path / "x.edge" / "quantisation.json").read_text())
    assert {row["part"] for row in found["parts"]} == {"head", "attention", "feed-forward up", "feed-forward down"}
    by_part = {(row["part"], row["type"]): row for row in found["parts"]}
    assert by_part["head", "q4_0"]["bytes"] < by_part["head", "q8_0"]["bytes"] and by_part["head", "q8_0"]["loss"] == 0
    decoders = [row for row in found["measured"] if row["component"] == "gguf"]
    assert [row["name"].split()[0] for row in decoders] == ["q4_0", "mixed"]
    assert found["chosen"]["gguf"]["loss"] <= decoders[0]["loss"]
    assert found["chosen"]["gguf"]["name"].split()[0] == spec.parts["decoder_gguf"].precision
    assert sum("chosen for" in step for step in steps) == 2
    assert (tmp_path / "x.edge" / "quantisation.svg").is_file() and (tmp_path / "x.edge" / "quantisation.md").is_file()
    open_bundle(tmp_path / "x.edge")
    assert abs((tmp_path / "x.edge" / "decoder.gguf").stat().st_size - found["chosen"]["gguf"]["bytes"]) < 200


def test_the_users_pictures_are_split_by_picture(tmp_path: Path) -> None:
    for number in range(4):
        draw = np.full((20, 30, 3), 40 * number, np.uint8)
        Image.fromarray(draw).save(tmp_path / f"{number}.png")
    (tmp_path / "questions.txt").write_text(
        "0.png\tOne?\n2.png\tTwo?\n2.png\tWhat does it say?\n1.png\tX?\n3.png\tY?\n"
    )
    split = split_probes(tmp_path)
    assert [(probe.prompt, int(probe.pictures[0][0, 0, 0])) for probe in split.measure] == [
        ("X?", 40),
        ("What does it say?", 40),
    ]
    assert [probe.prompt for probe in split.calibrate] == ["One?", "Two?", "What does it say?", "Y?"]


def test_questions_about_a_picture_reuse_its_cells(tiny_smolvlm: Path, tmp_path: Path) -> None:
    """Every prompt's divergence is what it is when it is asked alone, up to how 4-bit kernels split work."""
    checkpoint = open_checkpoint(tiny_smolvlm)
    family = find_family(checkpoint)
    options = ExportOptions(format="onnx", quant="f32", vision="fp32", verify=False)
    job = Job(checkpoint, family, choose_recipes(options), tmp_path, tmp_path)
    picture = (np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8),)
    probes = [Probe("What is this?", picture), Probe("And that?", picture), Probe("What?", (picture[0][::2],))]
    ground = lay_ground(job, resolve_task(checkpoint, family), options, probes)
    assert [item.pictures is ground.prepared[0].pictures for item in ground.prepared] == [True, True, False]
    lengths: list[int] = []

    class Counting:
        def __init__(self, decoder: Decoder) -> None:
            self.inner = decoder

        def prefill(self, segments: Sequence[Segment], *, all_logits: bool = False) -> FloatArray:
            lengths.append(sum(segment_lengths(segments)))
            return self.inner.prefill(segments, all_logits=all_logits)

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    losses = ground.losses(Counting(ground.carrier.model("onnx", n_ctx=ground.n_ctx, exact=True).decoder))  # type: ignore[arg-type]
    assert losses.shape == (3,)
    end = picture_ends(ground.prepared[0].prompt)[0]
    assert lengths.count(end) == 1
    for number in range(3):
        alone = replace(
            ground, prepared=ground.prepared[number : number + 1], answers=ground.answers[number : number + 1]
        )
        one = alone.losses(ground.carrier.model("onnx", n_ctx=ground.n_ctx, exact=True).decoder)[0] * alone.positions
        assert one == pytest.approx(losses[number] * ground.positions, rel=1e-3, abs=1e-6)
