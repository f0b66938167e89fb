"""Run the finished bundle next to the checkpoint and say in numbers how far they agree."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm.bundle.files import OPENVINO_TOWER
from edge_mllm.tower.placement import Placement
from edge_mllm_export.reference.probes import decoder_probes, pixel_probes, text_probes
from edge_mllm_export.reference.reference import Answer, Reference
from edge_mllm_export.verify.agreement import (
    EmbeddingAgreement,
    Greedy,
    LogitAgreement,
    compare_embeddings,
    compare_logits,
    join_greedy,
)
from edge_mllm_export.verify.asking import NEW_TOKENS, ask
from edge_mllm_export.verify.candidate import Candidate, Prepared, Run, follow
from edge_mllm_export.verify.inputs import compare_inputs
from edge_mllm_export.verify.npu import compare_npu_towers
from edge_mllm_export.verify.verdict import judge

if TYPE_CHECKING:
    from edge_mllm.arrays import FloatArray
    from edge_mllm.bundle.spec import BundleSpec, Engine
    from edge_mllm.session.session import Model
    from edge_mllm_export.families.task import Task
    from edge_mllm_export.job import Job
    from edge_mllm_export.options import ExportOptions

LOGGER = logging.getLogger(__name__)


def verify_bundle(job: Job, task: Task, spec: BundleSpec, options: ExportOptions) -> dict[str, Any]:
    """Compare the bundle in the job's staging directory with its checkpoint.

    Returns:
        The ``verification`` section of bundle.json.

    Raises:
        LossError: An unquantised part departs from the checkpoint, or a quantised one by more than the limits allow
            (not for random weights, whose answers mean nothing, and not with ``allow_loss``).
    """
    start = time.perf_counter()
    reference = Reference(job.checkpoint, job.family, task)
    candidate = Candidate(job.staging, threads=_threads())
    found: dict[str, Any] = {"reference": _describe(task), "processor": dict(reference.processor.described)}
    found["versions"] = versions()
    probes = (*text_probes(reference.markers), *pixel_probes(), *decoder_probes())
    found |= compare_inputs(reference, candidate, probes)
    for part in ("pixels", "token_ids"):
        if "first_difference" in found[part]:
            LOGGER.warning("%s differ first here: %s", part.replace("_", " "), found[part]["first_difference"])
    found["pixels"]["place"] = list(job.checkpoint.processor_place)
    asked = ask(reference)
    del reference
    answers = [answer for _, answer in asked.answers]
    prepared = [candidate.prepare(probe) for probe, _ in asked.answers]
    ours = [candidate.encode(item) for item in prepared]
    candidate.tower.close()
    towers = _compare_towers(spec, prepared, [answer.visual for answer in answers], ours)
    found["vision"] = {"recipe": job.recipes["vision"].name, **asdict(towers)}
    if OPENVINO_TOWER in spec.parts:
        found[OPENVINO_TOWER] = _compare_other_tower(candidate, prepared, answers)
    if spec.npu:
        found["npu"] = compare_npu_towers(candidate, prepared, [answer.visual for answer in answers], job.work)
    found["engines"] = {
        engine: compare_engine(candidate, engine, job.recipes[engine].lossless, (answers, prepared, ours))
        for engine in spec.engines
    }
    found["answers"] = asked.described
    found["prompts"] = [
        {"prompt": probe.prompt, "pictures": probe.sizes, "tokens": len(answer.inputs.ids)}
        for probe, answer in asked.answers
    ]
    found["seconds"] = round(time.perf_counter() - start, 1)
    return judge(found, job.recipes, options, random_weights=job.checkpoint.random_weights)


def _compare_other_tower(
    candidate: Candidate, prepared: Sequence[Prepared], answers: Sequence[Answer]
) -> dict[str, Any]:
    """The tower for OpenVINO, run by ONNX Runtime, which knows its operators too."""
    part = candidate.spec.parts[OPENVINO_TOWER]
    tower = candidate.placed_tower(Placement(part=OPENVINO_TOWER), tiles=1)
    ours = [candidate.encode(item, tower) for item in prepared]
    tower.close()
    agreement = _compare_towers(candidate.spec, prepared, [answer.visual for answer in answers], ours)
    return {"recipe": part.precision, **asdict(agreement)}


def _compare_towers(
    spec: BundleSpec, prepared: Sequence[Prepared], theirs: Sequence[FloatArray], ours: Sequence[FloatArray]
) -> EmbeddingAgreement:
    """Tile by tile; token by token where the tower takes any size, picture by picture where tiles are stitched."""
    pictures = [picture for item in prepared for picture in item.pictures]
    ends = np.cumsum(
        [
            part
            for picture in pictures
            for part in (
                [picture.tokens]
                if picture.plan.stitch is not None
                else [spec.vision.tokens_per_tile] * (picture.tokens // spec.vision.tokens_per_tile)
            )
        ]
    )
    # What goes to each layer of the decoder is compared by itself: it may be much larger than the embedding before it.
    width = spec.decoder.n_embd
    split = [[part.reshape(-1, width) for part in np.split(np.concatenate(rows), ends[:-1])] for rows in (theirs, ours)]
    return compare_embeddings(*split)


def compare_engine(
    candidate: Candidate,
    engine: Engine,
    exact: bool,
    material: tuple[Sequence[Answer], Sequence[Prepared], Sequence[FloatArray]],
) -> dict[str, Any]:
    """One engine's decoder alone (on the reference's visual embeddings) and the whole bundle (on its own).

    Args:
        candidate: The bundle.
        engine: Which decoder.
        exact: Unquantised; then llama.cpp's cache is float32 too.
        material: Reference answers, prompts and our own visual embeddings, one each per probe.
    """
    longest = max(len(answer.inputs.ids) for answer in material[0]) + NEW_TOKENS

    def compared(*, prompt_weights: bool) -> dict[str, Any]:
        with candidate.model(engine, n_ctx=longest, exact=exact, prompt_weights=prompt_weights) as model:
            return _compare_model(model, material)

    parts = candidate.spec.parts
    found = {"recipe": parts[f"decoder_{engine}"].precision, **compared(prompt_weights=True)}
    if engine == "onnx" and "prompt_onnx" in parts:
        found["prompt_weights"] = parts["prompt_onnx"].precision
        found["without_prompt_weights"] = compared(prompt_weights=False)
    return found


def _compare_model(
    model: Model, material: tuple[Sequence[Answer], Sequence[Prepared], Sequence[FloatArray]]
) -> dict[str, Any]:
    answers, prepared, ours = material
    found = {}
    for name, visual in (("decoder", [answer.visual for answer in answers]), ("whole", ours)):
        runs = [follow(model.pipeline, p, v, a) for p, v, a in zip(prepared, visual, answers, strict=True)]
        logits, greedy = _sum_up(runs, answers)
        found[name] = {**asdict(logits), "greedy": asdict(greedy)}
    return found


def _sum_up(runs: Sequence[Run], answers: Sequence[Answer]) -> tuple[LogitAgreement, Greedy]:
    theirs = np.concatenate([answer.logits for answer in answers])
    logits = compare_logits(theirs, np.concatenate([run.logits for run in runs]))
    return logits, join_greedy([(run.length, run.first_difference, run.forced) for run in runs])


def _describe(task: Task) -> str:
    import transformers

    return f"transformers {transformers.__version__}, {task.model_class.__name__}, float32"


def versions() -> dict[str, str]:
    """Of the libraries that the reference stands on."""
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("transformers", "tokenizers", "torch", "pillow")}


def _threads() -> int:
    from edge_mllm.machine.threads import default_threads

    return default_threads()
