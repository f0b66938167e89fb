"""What is proved is what runs: a user's answer, evaluation, the benchmark and verification share one prefill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edge_mllm
from edge_mllm.answer.decoding.prefill import Prefill
from edge_mllm.answer.pipeline import Pipeline
from edge_mllm.measure.bench.answer import measure_answer
from edge_mllm.measure.bench.result import Case
from edge_mllm.measure.eval.bundle_answerer import BundleAnswerer
from edge_mllm.picture.image import load_rgb
from edge_mllm_export.reference.probes import Probe
from edge_mllm_export.reference.reference import Answer, Inputs
from edge_mllm_export.verify.candidate import Candidate, along, follow

ROOT = Path(__file__).parents[2]
LABEL = ROOT / "starter" / "demo" / "label.png"
QUESTION = "What does it say?"


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the functions of the road, in the order in which they are called."""
    names: list[str] = []
    for owner, name in ((Pipeline, "_answered"), (Pipeline, "_prefill"), (Prefill, "fill")):
        original = getattr(owner, name)

        def noted(*args, _original=original, _name=name, **options):
            names.append(_name)
            return _original(*args, **options)

        monkeypatch.setattr(owner, name, noted)
    return names


ROAD = ["_answered", "_prefill", "fill"]


def test_a_users_answer(walked):
    with edge_mllm.load() as model:
        model.generate(QUESTION, LABEL, max_new_tokens=2)
    assert walked == ROAD


def test_evaluation(walked):
    with edge_mllm.load() as model:
        answerer = BundleAnswerer(model)
        answerer.answer(QUESTION, [LABEL], 2)
        assert walked == ROAD
        walked.clear()
        answerer.option_logprobs("Is it tea?", [LABEL], ["Yes"])
    assert walked == ["_prefill", "fill"]


def test_a_decision(walked):
    with edge_mllm.load() as model:
        model.decide("Is it tea?", ["Yes", "No"], LABEL)
    assert walked == ["_prefill", "fill"]


def test_the_benchmark(walked):
    with edge_mllm.load() as model:
        case = Case(model="starter", image_width=64, image_height=64, prompt_tokens=8, answer_tokens=2)
        measure_answer(model, case, 0)
    assert walked == ROAD


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_verification_sees_what_a_user_gets(engine, walked):
    candidate = Candidate(ROOT / "edge_mllm" / "starter.edge", threads=1)
    prepared = candidate.prepare(Probe(QUESTION, (load_rgb(LABEL),)))
    visual = candidate.encode(prepared)
    with candidate.model(engine, n_ctx=512, exact=False) as model:
        said = model.generate(QUESTION, LABEL)
        tokens = np.array([piece.token for piece in model.stream(QUESTION, LABEL)])
        walked.clear()
        inputs = Inputs(ids=prepared.prompt.ids, pixels=prepared.pixels, tensors={})
        n_vocab = model.decoder.n_vocab
        answer = Answer(
            inputs=inputs, visual=visual, tokens=tokens, logits=np.eye(len(tokens), n_vocab, dtype=np.float32)
        )
        run = follow(model.pipeline, prepared, visual, answer)
        assert walked == ROAD
        assert (run.first_difference, run.length) == (None, len(tokens))
        assert candidate.text(tokens).strip() == said.text.strip()
        walked.clear()
        at_once = along(model.pipeline._cells, prepared, visual, tokens)
    assert walked == ["fill"]
    np.testing.assert_allclose(at_once, run.logits, atol=0.05)
