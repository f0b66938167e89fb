"""A tower that is apart works while the decoder does: what comes out is bit for bit what comes out without that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_mllm
from edge_mllm.bundle.files import read_bundle
from edge_mllm.decoders.protocol import Tokens, Visual
from edge_mllm.decoders.segments import lengths, split_segments
from edge_mllm.errors import EngineError
from edge_mllm.interruption import interruptible
from edge_mllm.tower.engines import open_tower
from edge_mllm.tower.placement import Placement
from edge_mllm.tower.tower import VisionTower

ROOT = Path(__file__).parents[2]
STARTER = ROOT / "edge_mllm" / "starter.edge"
LABEL, SIGN = (ROOT / "starter" / "demo" / f"{name}.png" for name in ("label", "sign"))
QUESTION = "What do they say?"


class Apart:
    """Stands for an NPU: the starter's own tower, asked before every tile."""

    def __init__(self, before: Callable[[int], None] = lambda _: None) -> None:
        self._before, self.tiles = before, 0

    def open(self) -> Apart:
        self._session = open_tower(STARTER / "vision.onnx", "ort", 1)
        self.get_inputs, self.get_outputs = self._session.get_inputs, self._session.get_outputs
        return self

    def run(self, names: list[str], feeds: Any) -> Any:
        self.tiles += 1
        self._before(self.tiles - 1)
        return self._session.run(names, feeds)


def with_tower(model: edge_mllm.Model, place: Apart | None) -> None:
    """Have a model's pictures encoded apart, or by the same tower here."""
    placement = Placement() if place is None else Placement("qnn", npu=place)  # type: ignore[arg-type]
    model.pipeline.parts.encoder.tower = VisionTower.of(read_bundle(STARTER), threads=1, place=placement)


def answered(engine: str, chunk: int, pictures: list[Path], place: Apart | None) -> tuple[Any, list[np.ndarray]]:
    """Tokens with their log probabilities, and the decoder's cache after them."""
    with edge_mllm.load(STARTER, engine=engine, threads=1, chunk=chunk, cache_bytes=0) as model:
        with_tower(model, place)
        found = model.generate(QUESTION, pictures, max_new_tokens=6, logprobs=3)
        return (found.text, found.logprobs), [*model.pipeline.parts.decoder.state().arrays]


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
@pytest.mark.parametrize(("chunk", "pictures"), [(50, [LABEL]), (512, [SIGN, LABEL, SIGN]), (64, [LABEL, SIGN])])
def test_answers_and_caches_are_bit_for_bit_the_same(engine, chunk, pictures):
    said, cells = answered(engine, chunk, pictures, None)
    place = Apart()
    same, others = answered(engine, chunk, pictures, place)
    assert place.tiles >= 5 and same == said
    for ours, theirs in zip(others, cells, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("chunk", "pictures"), [(50, [LABEL]), (512, [SIGN, LABEL])])
def test_the_decoder_works_while_the_last_tile_is_encoded(chunk, pictures, monkeypatch):
    began, seen = threading.Event(), []
    counted = Apart()
    answered("onnx", chunk, pictures, counted)
    tiles = counted.tiles
    place = Apart(lambda tile: seen.append(began.wait(20)) if tile == tiles - 1 else None)
    with edge_mllm.load(STARTER, threads=1, chunk=chunk, cache_bytes=0) as model:
        with_tower(model, place)
        decoder = model.pipeline.parts.decoder
        prefill = decoder.prefill

        def noted(segments, **options):
            if any(isinstance(part, Visual) for part in segments):
                began.set()
            return prefill(segments, **options)

        monkeypatch.setattr(decoder, "prefill", noted)
        answer = model.generate(QUESTION, pictures, max_new_tokens=2)
    assert seen == [True] and [image.source for image in answer.images] == ["tower"] * len(pictures)
    times = answer.timings
    assert times.vision_s + times.prefill_s + times.preprocess_s <= times.ttft_s + times.load_s


def test_a_tower_that_fails_is_an_error_of_one_answer():
    def fail(tile: int) -> None:
        if tile == 3:
            raise RuntimeError("the driver is gone")

    (said, _), _ = answered("onnx", 50, [LABEL], None)
    with edge_mllm.load(STARTER, threads=1, chunk=50, cache_bytes=0) as model:
        with_tower(model, Apart(fail))
        with pytest.raises(EngineError, match="the driver is gone"):
            model.generate(QUESTION, LABEL)
        assert not [each for each in threading.enumerate() if each.name == "edge-mllm-tower"]
        assert model.generate(QUESTION, LABEL, max_new_tokens=6).text == said


def test_an_answer_that_is_ended_while_it_waits_leaves_no_thread():
    waiting, end = threading.Event(), threading.Event()

    def hold(tile: int) -> None:
        if tile == 2:
            waiting.set()
            end.wait(20)

    def check() -> None:
        if waiting.is_set():
            end.set()
            raise KeyboardInterrupt

    place = Apart(hold)
    with edge_mllm.load(STARTER, threads=1, cache_bytes=0) as model:
        with_tower(model, place)
        with pytest.raises(KeyboardInterrupt), interruptible(check):
            model.generate(QUESTION, LABEL)
        assert place.tiles <= 4 and not [each for each in threading.enumerate() if each.name == "edge-mllm-tower"]
        assert model.generate(QUESTION, LABEL).images[0].source == "tower"


def test_pictures_that_are_there_or_thinned_are_not_waited_for():
    place = Apart()
    with edge_mllm.load(STARTER, threads=1, chunk=50) as model:
        with_tower(model, place)
        first = model.generate(QUESTION, [LABEL], max_new_tokens=2)
        tiles = place.tiles
        again = model.generate("And now?", [SIGN, LABEL], max_new_tokens=2)
        assert [first.images[0].source, *(image.source for image in again.images)] == ["tower", "tower", "memory"]
        assert place.tiles > tiles
        thinned = model.generate(QUESTION, [SIGN], max_new_tokens=2, reduction="uniform:0.5")
        assert thinned.images[0].tokens < first.images[0].tokens


def test_segments_are_cut_anywhere():
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    segments = [Tokens(np.arange(4)), Visual(rows), Tokens(np.arange(3))]
    pieces = split_segments(segments, 0, [2, 9, 16, 17])
    assert [lengths(piece) for piece in pieces] == [[2], [2, 5], [5, 2], [1]]
    np.testing.assert_array_equal(np.concatenate([pieces[1][1].embeddings, pieces[2][0].embeddings]), rows)
    assert np.shares_memory(pieces[1][1].embeddings, rows)
