"""MiniCPM-V 4.7's bundles: tower and both engines against transformers, and places that the cache goes back to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_engines import Engines, check_continuations, check_hostile_bundle, check_tower, four_bits, told_of_phones
from oracle.gguf_metadata import read_metadata
from tiny_minicpm_v_4_7 import make_tiny_minicpm_v_4_7

import edge_mllm
from edge_mllm.answer.decoding.splice import splice
from edge_mllm.bundle.spec_json import read_spec, spec_to_dict
from edge_mllm.picture.tile_plan import plan_tiles
from edge_mllm.session.files import open_bundle
from edge_mllm_export.reference.probes import draw_picture

ENGINES = ("onnx", "gguf")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its slices have four tokens, so that a canvas has more rows than there are rows of slices."""
    return make_tiny_minicpm_v_4_7(tmp_path_factory.mktemp("tiny") / "minicpm47", mode="4x")


@pytest.fixture(scope="module")
def engines(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(checkpoint, tmp_path_factory.mktemp("bundle") / "minicpm47.edge")


def test_tower_equals_torch(engines: Engines) -> None:
    check_tower(engines)
    plans = [picture.plan for item in engines.prepared for picture in item.pictures]
    assert sum(plan.has_global for plan in plans) >= 3 and max(plan.tokens(1) for plan in plans) > 12


@pytest.mark.parametrize("engine", ENGINES)
def test_greedy_continuations_are_the_references(engines: Engines, engine: str) -> None:
    check_continuations(engines, engine, kl_max=1e-7)


@pytest.mark.parametrize("engine", ENGINES)
def test_other_positions_are_another_answer(engines: Engines, engine: Any) -> None:
    """What the comparison with the reference sees: every position, a mark's as well, changes the logits."""
    (item, _, other), answer = engines.prepared[2:5], engines.answers[2]
    assert item.prompt.places is not None and other.prompt.slots
    width = engines.candidate.spec.decoder.row_width
    line = np.arange(len(item.prompt.ids), dtype=np.int64)
    closing = item.prompt.slots[0].start + item.prompt.slots[0].length
    moved = item.prompt.places.copy()
    moved[1:3, closing] += 3
    found = []
    with engines.candidate.model(engine, n_ctx=256, exact=True) as model:
        for places in (item.prompt.places, np.stack([line, line, line, line + 1]), moved):
            model.decoder.truncate(0)
            segments = splice(replace(item.prompt, places=places), [engines.candidate.encode(item)], width)
            found.append(model.decoder.prefill(segments))
    differences = [float(np.abs(logits - answer.logits[0]).max()) for logits in found]
    assert differences[0] < 1e-3 < min(differences[1:]), differences


@pytest.mark.slow
def test_a_quarter_of_the_tokens_with_both_engines(tmp_path: Path) -> None:
    """The published way; other shares of rotary frequencies, of which the last ones stay time's."""
    tiny = make_tiny_minicpm_v_4_7(tmp_path / "tiny", scale=112, side=16, sections=(8, 5, 3))
    engines = Engines(tiny, tmp_path / "coarse.edge")
    check_tower(engines)
    for engine in ENGINES:
        check_continuations(engines, engine, kl_max=1e-7)


def _load(engines: Engines, engine: str) -> edge_mllm.Model:
    return edge_mllm.load(engines.out, engine=engine, threads=1, kv_type="f32" if engine == "gguf" else None)


def _logits(model: edge_mllm.Model, prompt: str, rgb: np.ndarray) -> tuple[list[Any], edge_mllm.Answer]:
    seen: list[np.ndarray] = []

    def note(logits: np.ndarray, _: Any) -> np.ndarray:
        seen.append(logits.copy())
        return logits

    answer = model.generate(prompt, images=[rgb], max_new_tokens=4, processors=[note])
    return seen, answer


@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_question_is_bit_equal_to_a_cold_one(engines: Engines, engine: str) -> None:
    """Prefill goes back to the last visual token: the marks behind it are placed on the canvas anew."""
    rgb = draw_picture(300, 120, seed=3)
    with _load(engines, engine) as model:
        model.generate("What is it?", images=[rgb], max_new_tokens=6)
        warm, second = _logits(model, "Which?", rgb)
        third, again = _logits(model, "Which?", rgb)
    with _load(engines, engine) as model:
        cold, first = _logits(model, "Which?", rgb)
    assert (second.images[0].source, first.images[0].source) == ("kv", "tower")
    assert second.usage.reused_tokens > second.usage.image_tokens > 20
    assert again.usage.reused_tokens > second.usage.reused_tokens
    assert second.text == first.text == again.text
    for ours in (warm, third):
        assert all(np.array_equal(a, b) for a, b in zip(ours, cold, strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_chats_go_back_to_noted_places(engines: Engines, engine: str, tmp_path: Path) -> None:
    rgb, settings = draw_picture(150, 90, seed=3), {"max_new_tokens": 8}
    with _load(engines, engine) as model:
        chat = model.chat()
        first = chat.ask("What is it?", images=[rgb], **settings)
        second = chat.ask("And this?", images=[rgb[:40]], **settings)
        assert second.images[0].source == "kv"
        assert 0 < first.usage.prompt_tokens - second.usage.reused_tokens < 16
        chat.save(tmp_path / "chat")
        third = chat.ask("Why?", **settings)
        assert third.usage.reused_tokens > second.usage.reused_tokens
    with _load(engines, engine) as model:
        taken = model.load_chat(tmp_path / "chat").ask("Why?", **settings)
        assert (taken.text, taken.images[0].source) == (third.text, "kv")
        assert taken.usage.reused_tokens == third.usage.reused_tokens


@pytest.mark.parametrize("engine", ENGINES)
def test_an_interrupted_answer_leaves_nothing_behind(engines: Engines, engine: str) -> None:
    rgb = draw_picture(150, 90, seed=3)
    with _load(engines, engine) as model:
        expected = model.generate("What is it?", images=[rgb], max_new_tokens=6)
        stream = model.stream("What else is it?", images=[rgb], max_new_tokens=6)
        next(iter(stream))
        stream.close()
        assert model.generate("What is it?", images=[rgb], max_new_tokens=6).text == expected.text
        scored = model.decide("What is it?", ["a cat", "a dog"], images=[rgb])
        assert model.decide("What is it?", ["a cat", "a dog"], images=[rgb]).best == scored.best


def test_reductions_leave_tokens_where_they_are(engines: Engines) -> None:
    rgb = np.full((100, 600, 3), 200, np.uint8)
    rgb[:, :150] = np.random.default_rng(1).integers(0, 255, (100, 150, 3), np.uint8)
    for engine in ENGINES:
        with _load(engines, engine) as model:
            whole = model.generate("What is it?", images=[rgb], max_new_tokens=2)
            fewer = model.generate("What is it?", images=[rgb], max_new_tokens=2, reduction="blank")
            thin = model.generate("What is it?", images=[rgb], max_new_tokens=2, reduction="uniform:1/2")
        assert 1 < fewer.images[0].tiles < whole.images[0].tiles
        assert thin.usage.image_tokens < whole.usage.image_tokens


def test_a_phone_is_told_not_to_run_it(engines: Engines) -> None:
    assert told_of_phones(engines).startswith("no, ")


def test_what_a_bundle_says(engines: Engines) -> None:
    """Where time has its own axis in llama.cpp's file, cells there are ordered by their number."""
    spec = open_bundle(engines.out).spec
    assert (spec.decoder.positions, spec.decoder.axes, spec.decoder.mrope_sections) == ("canvas", 3, (6, 5, 5))
    assert len(spec.prompt.canvas_marks) == 5 and read_spec(spec_to_dict(spec)) == spec
    sections = read_metadata(engines.out / "decoder.gguf")["qwen35.rope.dimension_sections"]
    assert list(sections) == [0, 5, 5, 6]
    plain = replace(spec, prompt=replace(spec.prompt, canvas_marks=()))
    assert "canvas_marks" not in spec_to_dict(plain)["prompt"]


@pytest.mark.parametrize(
    ("section", "change", "says"),
    [
        ("tiler", {"merge": None}, r"vision\.patches does not go with the tiler"),
        ("prompt", {"canvas_marks": []}, r"prompt\.canvas_marks: \[\] does not go with decoder\.positions 'canvas'"),
        ("prompt", {"canvas_marks": [-1]}, r"prompt\.canvas_marks: outside the vocabulary"),
        ("prompt", {"canvas_marks": ["a"]}, r"prompt\.canvas_marks"),
        ("decoder", {"positions": "mrope"}, r"prompt\.canvas_marks: .* does not go with decoder\.positions 'mrope'"),
        ("decoder", {"positions": "canvass"}, r"decoder\.positions: 'canvass' is not one of"),
        ("decoder", {"mrope_sections": [8, 8]}, r"decoder\.mrope_sections: canvas positions have three, not 2"),
        ("decoder", {"state_layers": None}, r"decoder\.state_layers is missing"),
        ("layout", {"before_tile": ""}, r"prompt\.layout\.before_tile is empty, and canvas positions need a mark"),
        ("layout", {"before_single": ""}, r"prompt\.layout\.before_single is empty"),
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
    source = make_tiny_minicpm_v_4_7(tmp_path / "source", tied=False, layers=kinds, **sizes)
    spec, answers = four_bits(source, tmp_path / "four.edge")
    assert spec.verification["processor"]["class"] == "MiniCPMV4_7Processor"
    tokens = plan_tiles(70, 33, spec.image.tiler).tokens(1)
    assert [answer.images[0].tokens for answer in answers] == [tokens, tokens]
