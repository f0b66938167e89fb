"""Unquantised bundles continue as transformers does, on both engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_mllm.bundle.spec import Engine
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.families.task import resolve_task
from edge_mllm_export.reference.probes import Probe, draw_picture
from edge_mllm_export.reference.reference import Answer, Reference
from edge_mllm_export.verify.agreement import compare_embeddings, compare_logits, join_greedy
from edge_mllm_export.verify.candidate import Candidate, Prepared, follow

NEW_TOKENS = 32
PROMPTS = (
    *("What does it say?", "What is the number?", "Read the second line.", "Which colour is the box?"),
    *("Describe the picture.", "How much is it?", "What is written at the top?"),
    *("Which of the two is cheaper?", "What changed between them?", "Do both say the same?"),
)
TWO_PICTURES = 3
"""So many of the prompts, the last ones, come with two pictures."""

Material = tuple[list[Answer], list[Prepared]]


def _probes() -> list[Probe]:
    sizes = [(64, 48), (48, 64), (200, 25), (25, 180), (32, 32), (100, 90), (33, 31)]
    probes = []
    for number, prompt in enumerate(PROMPTS):
        count = 2 if number >= len(PROMPTS) - TWO_PICTURES else 1
        chosen = [sizes[(number + k) % len(sizes)] for k in range(count)]
        pictures = tuple(draw_picture(*size, seed=number * 2 + k) for k, size in enumerate(chosen))
        probes.append(Probe(prompt, pictures))
    return probes


@pytest.fixture(scope="module")
def candidate(tiny_bundle: Path) -> Candidate:
    return Candidate(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def material(tiny_smolvlm: Path, candidate: Candidate) -> Material:
    checkpoint = open_checkpoint(tiny_smolvlm)
    family = find_family(checkpoint)
    reference = Reference(checkpoint, family, resolve_task(checkpoint, family))
    probes = _probes()
    answers = [reference.answer(probe, new_tokens=NEW_TOKENS) for probe in probes]
    return answers, [candidate.prepare(probe) for probe in probes]


def test_inputs_are_the_processors(material: Material) -> None:
    for answer, prepared in zip(*material, strict=True):
        np.testing.assert_array_equal(prepared.pixels, answer.inputs.pixels)
        np.testing.assert_array_equal(prepared.prompt.ids, answer.inputs.ids)


def test_every_visual_token_is_the_towers(candidate: Candidate, material: Material) -> None:
    for answer, prepared in zip(*material, strict=True):
        shape = (-1, candidate.spec.vision.tokens_per_tile, candidate.spec.decoder.n_embd)
        found = compare_embeddings(answer.visual.reshape(shape), candidate.encode(prepared).reshape(shape))
        assert found.cosine_min > 0.99999
        assert found.relative_error_max < 1e-4


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_greedy_continuations_are_the_references(candidate: Candidate, material: Material, engine: Engine) -> None:
    answers, prepared = material
    longest = max(len(answer.inputs.ids) for answer in answers) + NEW_TOKENS
    with candidate.model(engine, n_ctx=longest, exact=True) as model:
        runs = [
            follow(model.pipeline, item, candidate.encode(item), answer)
            for answer, item in zip(answers, prepared, strict=True)
        ]
    greedy = join_greedy([(run.length, run.first_difference, run.forced) for run in runs])
    assert greedy.first_differences == (None,) * len(PROMPTS)
    assert greedy.tokens > 4 * len(PROMPTS)
    assert greedy.forced <= 2
    for run, answer in zip(runs, answers, strict=True):
        assert compare_logits(answer.logits, run.logits).kl_max < 1e-8
