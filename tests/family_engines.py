"""A float32 bundle of a tiny checkpoint beside transformers: tower and both engines."""

from __future__ import annotations

import json
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_mllm
from edge_mllm.answer.answer import Answer as GeneratedAnswer
from edge_mllm.bundle.spec import BundleSpec
from edge_mllm.errors import EdgeMLLMError
from edge_mllm_export import ExportOptions, export_bundle
from edge_mllm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.families.task import resolve_task
from edge_mllm_export.reference.probes import Probe, draw_picture
from edge_mllm_export.reference.reference import Answer, Reference
from edge_mllm_export.verify.agreement import compare_logits, join_greedy
from edge_mllm_export.verify.candidate import Candidate, Prepared, follow

NEW_TOKENS = 16
SIZES = ((64, 48), (48, 70), (200, 25), (25, 180), (33, 31))
PROMPTS = ("What does it say?", "What is the number?", "Which colour is it?", "Describe it.", "Read the top.")


def load_exact(bundle: Path, engine: str, **settings: Any) -> edge_mllm.Model:
    """A bundle on one thread, its cache in float32 on both engines."""
    return edge_mllm.load(bundle, engine=engine, threads=1, kv_type="f32" if engine == "gguf" else None, **settings)


class Engines:
    """What both made of five pictures of different shapes, and of two pictures at once."""

    def __init__(self, checkpoint: Path | Checkpoint, out: Path) -> None:
        options = ExportOptions(format="both", quant="f32", vision="fp32", verify=False)
        self.opened = open_checkpoint(checkpoint) if isinstance(checkpoint, Path) else checkpoint
        export_bundle(str(self.opened.path), out, options)
        self.source, self.out = self.opened.path, out
        pictures = [draw_picture(*size, seed=number) for number, size in enumerate(SIZES)]
        self.probes = [Probe(prompt, (rgb,)) for prompt, rgb in zip(PROMPTS, pictures, strict=True)]
        self.probes.append(Probe("What is different?", (pictures[0], pictures[3])))

    @cached_property
    def candidate(self) -> Candidate:
        return Candidate(self.out, threads=1)

    def load(self, engine: str, **settings: Any) -> edge_mllm.Model:
        """The bundle, with a cache as exact as its weights."""
        return load_exact(self.out, engine, **settings)

    @cached_property
    def prepared(self) -> list[Prepared]:
        return [self.candidate.prepare(probe) for probe in self.probes]

    @cached_property
    def answers(self) -> list[Answer]:
        family = find_family(self.opened)
        reference = Reference(self.opened, family, resolve_task(self.opened, family))
        return [reference.answer(probe, new_tokens=NEW_TOKENS) for probe in self.probes]


def check_tower(engines: Engines) -> None:
    """Every visual token's cosine with the reference's is above 0.9999."""
    for answer, prepared in zip(engines.answers, engines.prepared, strict=True):
        np.testing.assert_array_equal(prepared.prompt.ids, answer.inputs.ids)
        ours = engines.candidate.encode(prepared)
        norms = np.linalg.norm(ours, axis=-1) * np.linalg.norm(answer.visual, axis=-1)
        cosine = (ours.astype(np.float64) * answer.visual).sum(-1) / norms
        assert cosine.min() > 0.9999
        assert np.abs(ours - answer.visual).max() < 1e-3


def check_continuations(engines: Engines, engine: Any, *, kl_max: float = 1e-8, worst: float = 0.01) -> None:
    """Greedily equal; where the reference's two best logits all but tie, its token is taken and counted."""
    longest = max(len(answer.inputs.ids) for answer in engines.answers) + NEW_TOKENS
    pairs = list(zip(engines.prepared, engines.answers, strict=True))
    with engines.candidate.model(engine, n_ctx=longest, exact=True) as model:
        runs = [
            follow(model.pipeline, prepared, engines.candidate.encode(prepared), answer) for prepared, answer in pairs
        ]
    greedy = join_greedy([(run.length, run.first_difference, run.forced) for run in runs])
    assert greedy.first_differences == (None,) * len(pairs)
    assert greedy.tokens > 4 * len(pairs)
    assert greedy.forced <= 2
    for run, answer in zip(runs, engines.answers, strict=True):
        agreement = compare_logits(answer.logits, run.logits)
        assert agreement.kl_max < kl_max
        assert agreement.max_abs_difference < worst


def four_bits(
    checkpoint: Path, out: Path, *, size: tuple[int, int] = (70, 33), cosine: float = 0.99, **options: Any
) -> tuple[BundleSpec, list[GeneratedAnswer]]:
    """Export in four bits; pixels and ids are verified as equal, and both engines answer about a picture of a size.

    Random weights lose much in four bits, so no loss is held against them here, but for the embeddings' cosine.
    """
    spec = export_bundle(str(checkpoint), out, ExportOptions(format="both", allow_loss=True, **options))
    assert spec.verification["pixels"]["max_abs_difference"] == 0
    assert spec.verification["token_ids"]["equal"] == spec.verification["token_ids"]["prompts"]
    assert spec.verification["vision"]["cosine_mean"] > cosine
    precisions = {part: spec.parts[part].precision for part in ("decoder_onnx", "decoder_gguf")}
    assert precisions == {"decoder_onnx": "int4_b32", "decoder_gguf": "q4_0"}
    answers = []
    for engine in spec.engines:
        with edge_mllm.load(out, engine=engine, threads=1) as model:
            answer = model.generate("What is it?", images=[draw_picture(*size, seed=0)], max_new_tokens=4)
        assert answer.usage.completion_tokens >= 1
        answers.append(answer)
    return spec, answers


def told_of_phones(engines: Engines) -> str:
    """What ``inspect`` says of phones."""
    from edge_mllm.cli.inspect import phone
    from edge_mllm.session.files import open_bundle

    return phone(open_bundle(engines.out).spec)


def check_hostile_bundle(engines: Engines, out: Path, section: str, change: dict[str, Any], says: str) -> None:
    """A bundle with a changed section of bundle.json, copied to ``out``, is refused with a reason."""
    shutil.copytree(engines.out, out)
    document = json.loads((out / "bundle.json").read_text(encoding="utf-8"))
    sections = {
        **document,
        "tiler": document["image"]["tiler"],
        "layout": document["prompt"].get("layout"),
        "patches": document["vision"].get("patches"),
    }
    sections[section].update(change)
    (out / "bundle.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(EdgeMLLMError, match=says):
        edge_mllm.load(out, engine="onnx", threads=1)
