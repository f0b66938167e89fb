"""Pixels and token ids of a bundle beside those of the checkpoint's own processor."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm.errors import EdgeMLLMError
from edge_mllm_export.reference.probes import further_sizes
from edge_mllm_export.verify.suspects import suspected_fields

if TYPE_CHECKING:
    from edge_mllm.arrays import IntArray
    from edge_mllm_export.reference.probes import Probe
    from edge_mllm_export.reference.reference import Inputs, Reference
    from edge_mllm_export.verify.candidate import Candidate, Prepared

SIZES_SECONDS = 20.0
"""How long pictures of further sizes are compared."""


@dataclass
class _Found:
    """What was compared so far."""

    difference: float = 0.0
    pictures: int = 0
    equal: int = 0
    prompts: int = 0
    refused: int = 0
    first: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The first difference in pixels and in token ids."""

    def section(self) -> dict[str, Any]:
        """For the report."""
        pixels = {"max_abs_difference": self.difference, "pictures": self.pictures}
        ids = {"equal": self.equal, "prompts": self.prompts, "refused_by_both": self.refused}
        first = {part: {"first_difference": place} for part, place in self.first.items()}
        return {"pixels": pixels | first.get("pixels", {}), "token_ids": ids | first.get("token_ids", {})}


def compare_inputs(reference: Reference, candidate: Candidate, probes: Iterable[Probe]) -> dict[str, Any]:
    """Pixels and token ids of all probes, then of pictures of further sizes within :data:`SIZES_SECONDS`.

    A prompt that both sides refuse counts as equal; one that a single side refuses does not.

    Returns:
        The sections ``pixels`` and ``token_ids`` of a verification.
    """
    found = _Found()
    for probe in probes:
        _compare(found, reference, candidate, probe)
    sizes, start = 0, time.perf_counter()
    for probe in further_sizes():
        if time.perf_counter() - start > SIZES_SECONDS:
            break
        _compare(found, reference, candidate, probe)
        sizes += 1
    section = found.section()
    section["pixels"] |= {"further_sizes": sizes, "budget_seconds": SIZES_SECONDS}
    return section


def _compare(found: _Found, reference: Reference, candidate: Candidate, probe: Probe) -> None:
    theirs, ours = _reference(reference, probe), _candidate(candidate, probe)
    found.prompts += 1
    if isinstance(theirs, str) or isinstance(ours, str):
        both = isinstance(theirs, str) and isinstance(ours, str)
        found.equal += both
        found.refused += both
        if not both:
            refusal = {"reference_refuses": theirs} if isinstance(theirs, str) else {"bundle_refuses": ours}
            found.first.setdefault("token_ids", {**_named(probe), **refusal})
        return
    if probe.pictures:
        found.pictures += len(probe.pictures)
        pixels = ours.pixels
        worst = float(np.abs(theirs.pixels - pixels).max()) if theirs.pixels.shape == pixels.shape else np.inf
        if worst > found.difference:
            shapes = {"reference": list(theirs.pixels.shape), "bundle": list(pixels.shape)}
            fields = list(suspected_fields(theirs.pixels, pixels))
            found.first["pixels"] = {**_named(probe), "shapes": shapes, "fields": fields}
        found.difference = max(found.difference, worst)
    same = bool(np.array_equal(theirs.ids, ours.prompt.ids))
    found.equal += same
    if not same:
        found.first.setdefault("token_ids", {**_named(probe), **_place(theirs.ids, ours.prompt.ids)})


def _reference(reference: Reference, probe: Probe) -> Inputs | str:
    """The reference's inputs, or why it refuses the prompt."""
    try:
        return reference.inputs(probe)
    except Exception as error:  # whatever transformers' code and a template raise
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _candidate(candidate: Candidate, probe: Probe) -> Prepared | str:
    try:
        return candidate.prepare(probe)
    except EdgeMLLMError as error:
        return str(error)


def _named(probe: Probe) -> dict[str, Any]:
    before = {"before": [list(turn) for turn in probe.before]} if probe.before else {}
    return {"prompt": probe.prompt, **before, "pictures": probe.sizes}


def _place(theirs: IntArray, ours: IntArray) -> dict[str, Any]:
    """Where two prompts part, with the ids there."""
    shared = min(len(theirs), len(ours))
    places = np.flatnonzero(theirs[:shared] != ours[:shared])
    place = int(places[0]) if len(places) else shared
    around = slice(place, place + 6)
    return {"place": place, "reference": theirs[around].tolist(), "bundle": ours[around].tolist()}
