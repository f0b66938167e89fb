"""A changed picture leaves in the cache what lies before its first changed tile, and answers bit for bit as cold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from family_makers import make_tiny

import edge_mllm
from edge_mllm_export.options import ExportOptions
from edge_mllm_export.pipeline import export_bundle

CHUNK = 24
"""Cells that are computed at once: a few tiles of these tiny models."""
WAYS = {
    "onnx": ("onnx", ExportOptions(format="onnx", quant="int4_b32", vision="int8", verify=False, calibration=False)),
    "prompt weights": (
        "onnx",
        ExportOptions(
            format="onnx", quant="int4_b32", prompt_weights="int8", vision="int8", verify=False, calibration=False
        ),
    ),
    "gguf": ("gguf", ExportOptions(format="gguf", quant="q4_0", vision="int8", verify=False, calibration=False)),
}


@pytest.fixture(scope="module", params=[(family, way) for family in ("internvl", "idefics3") for way in WAYS])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[edge_mllm.Model]]:
    """A model, and another one of the same bundle for what is computed cold."""
    family, way = request.param
    home = tmp_path_factory.mktemp("kept")
    engine, options = WAYS[way]
    export_bundle(str(make_tiny(family, home)), home / "tiny.edge", options)
    loaded = [edge_mllm.load(home / "tiny.edge", engine=engine, threads=1, chunk=CHUNK) for _ in range(2)]
    yield loaded
    for model in loaded:
        model.close()


def screen(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (230, 250, 3), dtype=np.uint8)


def changed(picture: np.ndarray, top: int, left: int) -> np.ndarray:
    """A copy with a small block of other pixels."""
    other = picture.copy()
    other[top : top + 8, left : left + 8] ^= 255
    return other


def said(model: edge_mllm.Model, question: str, picture: np.ndarray | None) -> tuple[int, list[object]]:
    """Tokens reused, and what came out to the last bit."""
    content = [{"type": "text", "text": "Answer in one word. " * 8}, {"type": "image", "image": picture}]
    messages = [
        {"role": "user", "content": [*(content if picture is not None else ()), {"type": "text", "text": question}]}
    ]
    answer = model.generate(messages=messages, max_new_tokens=4, logprobs=8, ignore_eos=True)
    assert answer.logprobs is not None
    return answer.usage.reused_tokens, list(answer.logprobs)


def cold_said(model: edge_mllm.Model, question: str, picture: np.ndarray | None) -> list[object]:
    model.generate("x", max_new_tokens=1)  # nothing of the last picture stays
    reused, out = said(model, question, picture)
    assert reused == 0
    return out


def test_what_lies_before_the_changed_tile_is_kept(models: list[edge_mllm.Model]) -> None:
    model, cold = models
    picture = screen()
    said(model, "What?", picture)
    last, out = said(model, "What?", changed(picture, 220, 240))
    assert last >= CHUNK and out == cold_said(cold, "What?", changed(picture, 220, 240))
    draw = np.random.default_rng(5)
    for _ in range(6):
        picture = changed(picture, int(draw.integers(0, 220)), int(draw.integers(0, 240)))
        _, out = said(model, "What?", picture)
        assert out == cold_said(cold, "What?", picture)


def test_a_change_in_the_first_tile_keeps_none(models: list[edge_mllm.Model]) -> None:
    model, cold = models
    model.generate("What?", screen(), max_new_tokens=1)
    other, again = (each.generate("What?", screen(1), max_new_tokens=4, logprobs=8) for each in (model, cold))
    assert other.usage.reused_tokens == 0 and other.logprobs == again.logprobs


def test_long_beginnings_of_texts_are_kept_in_the_runs_they_were_computed_in(models: list[edge_mllm.Model]) -> None:
    model, cold = models
    rules = "Answer in one word. Say nothing else. " * 20
    said(model, rules + "What is one?", None)
    reused, out = said(model, rules + "What is two and what is it not?", None)
    assert reused >= CHUNK and out == cold_said(cold, rules + "What is two and what is it not?", None)
    reused, out = said(model, rules + "What is this?", screen())
    assert out == cold_said(cold, rules + "What is this?", screen())
    reused, out = said(model, rules + "What is one?", None)
    assert out == cold_said(cold, rules + "What is one?", None)


def test_an_answers_tokens_are_no_run_of_a_prompt(models: list[edge_mllm.Model]) -> None:
    """They were computed one by one, so that a later prompt with the same text computes them again."""
    model, cold = models
    first = model.generate("What is one?", max_new_tokens=64, ignore_eos=True)
    talk = [
        {"role": "user", "content": "What is one?"},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "And two?"},
    ]
    answers = [each.generate(messages=talk, max_new_tokens=2, logprobs=8, ignore_eos=True) for each in (model, cold)]
    assert answers[0].logprobs == answers[1].logprobs
