"""What every variant of a sweep is measured on: prompts with pictures, and the checkpoint's answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_mllm_export.agreement import compare_embeddings, kl_divergence
from edge_mllm_export.candidate import Candidate, Prepared, teacher_forced
from edge_mllm_export.probes import Probe
from edge_mllm_export.reference import Answer, Reference

if TYPE_CHECKING:
    from edge_mllm.decoders.protocol import Decoder, FloatArray
    from edge_mllm_export.options import ExportOptions
    from edge_mllm_export.parts import Job
    from edge_mllm_export.task import Task

NEW_TOKENS = 32
MOST_POSITIONS = 8192
"""Positions of prompts and answers after which no further prompt is added."""
SECOND_QUESTION = "What does it say?"


@dataclass(frozen=True)
class Ground:
    """Prompts, answers, and a bundle whose decoder loses next to nothing."""

    carrier: Candidate
    prepared: tuple[Prepared, ...]
    answers: tuple[Answer, ...]
    threads: int

    @property
    def positions(self) -> int:
        """Answer tokens that are compared."""
        return sum(len(answer.tokens) for answer in self.answers)

    @property
    def n_ctx(self) -> int:
        """Cells that the longest prompt with its answer needs."""
        return max(len(answer.inputs.ids) + len(answer.tokens) for answer in self.answers) + 1

    def loss(self, decoder: Decoder, visual: Sequence[FloatArray] | None = None) -> float:
        """Mean KL divergence from the checkpoint in nats per token; the decoder is closed afterwards.

        Args:
            decoder: Any engine's.
            visual: Visual embeddings of every prompt, float32 [visual tokens, n_embd]; None: the checkpoint's own.
        """
        shown = [answer.visual for answer in self.answers] if visual is None else visual
        try:
            parts = [
                kl_divergence(answer.logits, teacher_forced(decoder, prepared, rows, answer.tokens))
                for prepared, answer, rows in zip(self.prepared, self.answers, shown, strict=True)
            ]
        finally:
            decoder.close()
        return float(np.concatenate(parts).mean())

    def embeddings(self, tower: Path) -> list[FloatArray]:
        """What a tower makes of the pictures of every prompt."""
        made = self.carrier.other_tower(tower)
        rows = [self.carrier.encode(item, made) for item in self.prepared]
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
    from edge_mllm.threads import default_threads
    from edge_mllm_export.pipeline import export_bundle

    gguf = options.format != "onnx"
    plain = replace(
        options,
        format="gguf" if gguf else "onnx",
        quant="q8_0" if gguf else "int8_b32",
        vision="fp16",
        calibration=False,
        calibrate=None,
        mmproj=False,
        verify=False,
        kv=None,
        max_size=None,
        max_loss=None,
    )
    out = job.work / "carrier.edge"
    export_bundle(str(job.checkpoint.path), out, plain)
    carrier = Candidate(out, default_threads())
    reference = Reference(job.checkpoint, job.family, task)
    answers: list[Answer] = []
    prepared: list[Prepared] = []
    positions = 0
    for probe in (*probes, *(Probe(SECOND_QUESTION, probe.pictures) for probe in probes)):
        if positions >= MOST_POSITIONS:
            break
        answers.append(reference.answer(probe, new_tokens=NEW_TOKENS))
        prepared.append(carrier.prepare(probe))
        positions += len(answers[-1].inputs.ids) + len(answers[-1].tokens)
    return Ground(carrier, tuple(prepared), tuple(answers), default_threads())
