"""The reference's own answers, as many as it takes to tell small losses apart."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_mllm_export.reference.probes import decoder_probes, further_questions

if TYPE_CHECKING:
    from edge_mllm_export.reference.probes import Probe
    from edge_mllm_export.reference.reference import Answer, Reference

NEW_TOKENS = 32
"""Longest greedy continuation that is compared."""
POSITIONS = 200
"""Places in answers at which logits are compared: with 200, a top-1 agreement of 0.95 is known to 0.03."""
ANSWERS_SECONDS = 60.0
"""How long further questions are asked while there are fewer."""


@dataclass(frozen=True)
class Asked:
    """Prompts and the reference's answers to them."""

    answers: tuple[tuple[Probe, Answer], ...]
    seconds: float

    @property
    def positions(self) -> int:
        """Tokens of all answers."""
        return sum(len(answer.tokens) for _, answer in self.answers)

    @property
    def described(self) -> dict[str, Any]:
        """For the report."""
        return {
            "positions": self.positions,
            "wanted": POSITIONS,
            "seconds": round(self.seconds, 1),
            "budget_seconds": ANSWERS_SECONDS,
        }


def ask(reference: Reference) -> Asked:
    """Answers to the fixed prompts, and to further ones until there are :data:`POSITIONS` or time is up."""
    start = time.perf_counter()
    found = [(probe, reference.answer(probe, new_tokens=NEW_TOKENS)) for probe in decoder_probes()]
    positions = sum(len(answer.tokens) for _, answer in found)
    further, began = further_questions(), time.perf_counter()
    while positions < POSITIONS and time.perf_counter() - began < ANSWERS_SECONDS:
        probe = next(further)
        answer = reference.answer(probe, new_tokens=NEW_TOKENS)
        positions += len(answer.tokens)
        found.append((probe, answer))
    return Asked(tuple(found), time.perf_counter() - start)
