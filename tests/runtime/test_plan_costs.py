"""From facts and a device to rows of a plan."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edge_mllm.bundle.spec import ImageSpec, VisionSpec
from edge_mllm.bundle.tilers import LongestEdgeGrid
from edge_mllm.costs.devices import device_names, keep_profile, named_device, scaled, this_machine
from edge_mllm.costs.estimate import PROGRAM_BYTES, Ask, costs
from edge_mllm.costs.facts import ModelFacts, PartSize
from edge_mllm.costs.roofline import DeviceProfile, Line
from edge_mllm.costs.shapes import DecoderShape, ModelShape, TowerShape
from edge_mllm.errors import SettingError
from edge_mllm.machine.peaks import Peaks

DECODER = DecoderShape(n_embd=64, n_layer=2, n_head=4, n_kv_head=2, head_dim=16, n_ff=128, n_vocab=1000, tied=True)
TOWER = TowerShape(
    hidden=32, n_layer=2, n_head=2, n_ff=64, patches=64, patch_values=192, tokens=16, projector_weights=2048
)
FACTS = ModelFacts(
    name="x",
    context_length=512,
    image=ImageSpec(
        tiler=LongestEdgeGrid(longest_edge=256, tile=64, split=True),
        resample="lanczos",
        rescale=1 / 255,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    vision=VisionSpec(tokens_per_tile=16, tile_height=64, tile_width=64),
    decoders={
        "gguf": [
            PartSize(recipe="f16", weight_bytes=2_000_000, token_bytes=2_000_000),
            PartSize(recipe="q4_0", weight_bytes=600_000, token_bytes=500_000, default=True),
        ]
    },
    towers=[PartSize(recipe="int8", weight_bytes=300_000, default=True)],
    shape=ModelShape(decoder=DECODER, tower=TOWER),
)
PEAKS = Peaks(threads=2, read_bytes_per_s=1e10, buffer_bytes=1, float32_ops_per_s=1e11, int8_ops_per_s=4e11)


def line(rate: float, overhead: float = 0.0) -> Line:
    return Line(rate=rate, attention_rate=rate / 2, overhead=overhead, observations=3, worst=0.1)


def profile(**changes: object) -> DeviceProfile:
    lines = {
        "picture": line(1e8),
        "tower/int8": line(1e9, 0.01),
        "prefill/gguf/q4_0": line(1e9, 1e-7),
        "prefill/onnx/f32": line(1e9),
        "decode/gguf/q4_0": line(1e8, 1e-5),
    }
    base = DeviceProfile(machine="m", processor="p", memory_bytes=1, threads=2, created="now", lines=lines, peaks=PEAKS)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_the_default_comes_first_and_adds_up() -> None:
    ask = Ask(width=128, height=96, text_tokens=20, answer_tokens=11)
    first, other = costs(FACTS, ask, profile())
    picture = FACTS.picture(128, 96)
    assert (first.decoder.recipe, other.decoder.recipe) == ("q4_0", "f16")
    assert first.disk_bytes == 900_000
    prompt = picture.tokens + 20
    cache = 2 * 2 * 2 * 16 * (prompt + 11) * 2
    assert first.memory_bytes == 900_000 + cache + 4 * 128 * 96 + PROGRAM_BYTES
    pixels = 128 * 96 + picture.tiles * 64 * 64
    vision = pixels / 1e8 + picture.tiles * (TOWER.linear_ops / 1e9 + TOWER.attention_scores / 5e8 + 0.01)
    assert first.vision_s == pytest.approx(vision)
    assert first.ttft_s == pytest.approx(
        vision + DECODER.linear_ops(prompt) / 1e9 + DECODER.attention_scores(prompt) / 5e8 + 1e-7 * 64 * 2 * prompt
    )
    attention = 2 * 4 * (prompt + 5.5 + 1) + 2 * 2 * (prompt + 5.5)
    assert first.decode_tps == pytest.approx(1 / (500_000 / 1e8 + attention / 5e7 + 1e-5 * 64 * 2))
    assert (other.ttft_s, other.decode_tps) == (None, None), "f16 was not measured on this device"


def test_a_memory_limit_says_what_fits() -> None:
    limit = PROGRAM_BYTES + 1_500_000
    small, large = costs(FACTS, Ask(width=64, height=64, memory_limit=limit), None)
    assert (small.fits, large.fits) == (True, False)
    photo, _ = costs(FACTS, Ask(width=4000, height=3000, memory_limit=limit), None)
    assert photo.fits is False, "the decoded picture counts"
    assert small.ttft_s is None
    assert costs(FACTS, Ask(width=64, height=64), None)[0].fits is None


def test_another_device_is_scaled_by_its_limits() -> None:
    half = dataclasses.replace(PEAKS, read_bytes_per_s=5e9, int8_ops_per_s=1e11, float32_ops_per_s=2e11)
    empty = profile(lines={}, peaks=half, processor="other", source="limits measured")
    made = scaled(profile(), empty)
    assert made.estimated and made.processor == "other" and "limits" in made.source
    assert made.lines["decode/gguf/q4_0"].rate == pytest.approx(0.5e8)
    assert made.lines["decode/gguf/q4_0"].attention_rate == pytest.approx(1e8), "products in floats"
    assert made.lines["decode/gguf/q4_0"].overhead == pytest.approx(2e-5)
    assert made.lines["tower/int8"].rate == pytest.approx(0.25e9)
    assert made.lines["prefill/onnx/f32"].rate == pytest.approx(2e9), "products in floats"
    assert made.lines["picture"].rate == pytest.approx(2e8)
    with pytest.raises(SettingError, match="limits are known"):
        scaled(profile(peaks=None), empty)


def test_shipped_devices_can_be_read_and_estimates_say_so() -> None:
    names = device_names()
    assert "rpi5" in names
    board = named_device("rpi5")
    assert board.estimated and "no measurement" in board.source and board.lines
    with pytest.raises(SettingError, match=r"no device 'toaster'; there are:.*rpi5"):
        named_device("toaster")


def test_a_measured_profile_is_preferred(tmp_path: Path) -> None:
    estimated = this_machine(tmp_path)
    assert estimated.estimated and estimated.lines
    kept = dataclasses.replace(estimated, estimated=False, source="measured")
    assert keep_profile(kept, tmp_path).parent == tmp_path / "devices-3"
    assert this_machine(tmp_path) == kept
