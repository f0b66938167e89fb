"""What every variant of a sweep is measured on: prompts with pictures, and the checkpoint's answers to them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_mllm.answer.decoding.cells import CellCache
from edge_mllm_export.calibrate.calibration import by_picture
from edge_mllm_export.families.inventory import text_shapes
from edge_mllm_export.job import Job
from edge_mllm_export.options import ExportOptions, choose_recipes
from edge_mllm_export.reference.probes import Probe
from edge_mllm_export.reference.reference import Answer, Inputs, Reference
from edge_mllm_export.verify.agreement import compare_embeddings, kl_divergence
from edge_mllm_export.verify.candidate import Candidate, Prepared, along
from edge_mllm_export.write.bundle import write_bundle

if TYPE_CHECKING:
    from edge_mllm.arrays import FloatArray
    from edge_mllm.decoders.protocol import Decoder
    from edge_mllm_export.auto.choice import Losses
    from edge_mllm_export.families.task import Task
    from edge_mllm_quant.recipes.recipe import Component, Recipe

NEW_TOKENS = 32
MOST_POSITIONS = 65_536
"""Positions of prompts and answers after which no further prompt is added."""
MOST_WORK = 3e12
"""The same for larger models: positions times weights of the language model."""


@dataclass(frozen=True)
class Ground:
    """Prompts, answers, and a bundle whose decoder loses next to nothing."""

    carrier: Candidate
    prepared: tuple[Prepared, ...]
    """Prompts about the same pictures follow each other and share them."""
    answers: tuple[Answer, ...]
    """Without pixels."""
    threads: int

    @property
    def positions(self) -> int:
        """Answer tokens that are compared."""
        return sum(len(answer.tokens) for answer in self.answers)

    @property
    def n_ctx(self) -> int:
        """Cells that the longest prompt with its answer needs."""
        return max(len(answer.inputs.ids) + len(answer.tokens) for answer in self.answers) + 1

    def losses(self, decoder: Decoder, visual: Sequence[FloatArray] | None = None) -> Losses:
        """What every prompt adds to the mean KL divergence from the checkpoint, float64 [prompts], nats per token.

        A picture's cells are kept for the next question about it. The decoder is closed afterwards.

        Args:
            decoder: Any engine's.
            visual: Visual embeddings of every prompt, float32 [visual tokens, n_embd]; None: the checkpoint's own.
        """
        shown = [answer.visual for answer in self.answers] if visual is None else visual
        cells, sums = CellCache(decoder), list[float]()
        try:
            for prepared, answer, rows in zip(self.prepared, self.answers, shown, strict=True):
                logits = along(cells, prepared, rows, answer.tokens)
                sums.append(float(kl_divergence(answer.logits, logits).sum()))
        finally:
            decoder.close()
        return np.array(sums) / self.positions

    def embeddings(self, tower: Path) -> list[FloatArray]:
        """What a tower makes of the pictures of every prompt."""
        made = self.carrier.other_tower(tower)
        rows: list[FloatArray] = []
        for before, item in zip((None, *self.prepared), self.prepared, strict=False):
            known = before is not None and before.pictures is item.pictures
            rows.append(rows[-1] if known else self.carrier.encode(item, made))
        made.close()
        return rows

    def cosine(self, visual: Sequence[FloatArray]) -> float:
        """Mean cosine of visual tokens with the checkpoint's."""
        return compare_embeddings([answer.visual for answer in self.answers], visual).cosine_mean


def lay_ground(job: Job, task: Task, options: ExportOptions, probes: Sequence[Probe]) -> Ground:
    """Let the checkpoint answer, and export the bundle that carries towers.

    Args:
        job: Names the checkpoint; its scratch directory takes the bundle.
        task: Makes the reference.
        options: The engines and the family's choices are taken over.
        probes: Pictures that nothing was calibrated with.
    """
    from edge_mllm.machine.threads import default_threads

    gguf = options.format != "onnx"
    plain = ExportOptions(
        format="gguf" if gguf else "onnx",
        quant="q8_0" if gguf else "int8_b32",
        vision="fp16",
    )
    carrier = Candidate(_carrier(job, choose_recipes(plain)), default_threads())
    reference = Reference(job.checkpoint, job.family, task)
    asked = _affordable(job, reference, by_picture(probes))
    prepared: list[Prepared] = []
    for group in by_picture([probe for probe, _ in asked]):
        made = [carrier.prepare(probe) for probe in group]
        prepared += [replace(item, pictures=made[0].pictures) for item in made]
    return Ground(carrier, tuple(prepared), tuple(answer for _, answer in asked), default_threads())


def _carrier(job: Job, recipes: Mapping[Component, Recipe]) -> Path:
    """A bundle of the same checkpoint with other recipes, in the job's scratch directory."""
    out, work = job.work / "carrier.edge", job.work / "carrier"
    out.mkdir()
    work.mkdir()
    plain = Job(job.checkpoint, job.family, recipes, staging=out, work=work)
    write_bundle(plain, "carrier")
    shutil.rmtree(work)
    return out


def _affordable(job: Job, reference: Reference, groups: Sequence[Sequence[Probe]]) -> list[tuple[Probe, Answer]]:
    """As many prompts as the limits allow, one about every picture first, with answers; sorted by picture."""
    weights = sum(prod(shape) for shape in text_shapes(job.checkpoint, job.family).values())
    most = min(MOST_POSITIONS, MOST_WORK / weights)
    order = sorted((place, number) for number, group in enumerate(groups) for place in range(len(group)))
    asked: dict[tuple[int, int], Answer] = {}
    positions = 0
    for place, number in order:
        if positions >= most:
            break
        answer = reference.answer(groups[number][place], new_tokens=NEW_TOKENS)
        positions += len(answer.inputs.ids) + len(answer.tokens)
        nothing = Inputs(ids=answer.inputs.ids, pixels=np.empty((0, 3, 1, 1), np.float32), tensors={})
        asked[number, place] = replace(answer, inputs=nothing)
    return [(groups[number][place], asked[number, place]) for number, place in sorted(asked)]
