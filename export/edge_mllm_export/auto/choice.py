"""The choice among what a sweep measured: one tower, and one decoder for each engine.

Losses of small sets of prompts are noisy, and of many mixtures the luckiest looks best. So a fixed recipe is given up
for a mixture only where the mixture is better beyond chance, compared prompt by prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.measure.eval.resampling import bootstrap_interval
from edge_mllm_export.auto.gguf import MIXED
from edge_mllm_quant.recipes.mixture import Choice, Mixture, MixtureError, combine, pick
from edge_mllm_quant.recipes.recipe import Component, Recipe

Losses = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measured:
    """One way of storing one component, made and measured."""

    component: Component
    recipe: Recipe
    bytes: int
    losses: Losses
    """What every prompt adds to the mean loss, float64 [prompts], nats per token; of a tower the difference."""
    cosine: float | None = None
    """Of visual tokens, towers only."""

    @property
    def loss(self) -> float:
        """Nats per token."""
        return max(0.0, float(self.losses.sum()))

    @property
    def fixed(self) -> bool:
        """Whether it is a recipe that has a name of its own."""
        return self.recipe.name != MIXED

    @property
    def label(self) -> str:
        """The recipe's name with its exceptions."""
        return " ".join([self.recipe.name, *self.recipe.overrides])

    @property
    def row(self) -> dict[str, Any]:
        """For the report."""
        fields = {"component": self.component, "name": self.label, "bytes": self.bytes, "loss": self.loss}
        fields |= {} if self.cosine is None else {"cosine": self.cosine}
        return {**fields, "by_prompt": [float(f"{value:.3e}") for value in self.losses]}


Chosen = dict[Component, Measured]


def choose(found: Sequence[Measured], max_bytes: int | None, max_loss: float | None) -> Chosen:
    """One tower and one decoder per engine; the limits hold for what an engine loads: its decoder and the tower.

    The smallest within ``max_loss``; without that limit the one of least loss within ``max_bytes``, fixed recipes
    before mixtures that are not better beyond chance.

    Raises:
        MixtureError: Nothing stays within the limits; the message says what can be had.
    """
    best = _best(found, max_bytes, max_loss)
    if best is None:  # the reason, for the engine that asks for most
        towers = _choices(found, "vision")
        for engine in _engines(found):
            pick(combine({"vision": towers, engine: _choices(found, engine)}), max_bytes=max_bytes, max_loss=max_loss)
        raise AssertionError("every engine can be had alone, so the tower they need is one that both can have")
    if max_loss is not None:
        return best
    plain = _best([item for item in found if item.fixed], max_bytes, max_loss)
    return best if plain is None or better(best, plain) else plain


def better(ours: Chosen, theirs: Chosen) -> bool:
    """Whether one choice loses less than another beyond chance: 95 % interval of the paired difference."""
    mine, other = (np.sum([item.losses for item in choice.values()], axis=0) for choice in (ours, theirs))
    return bootstrap_interval((mine - other).tolist())[1] < 0


def _engines(found: Sequence[Measured]) -> list[Component]:
    return [*dict.fromkeys(item.component for item in found if item.component != "vision")]


def _choices(found: Sequence[Measured], component: Component) -> list[Choice]:
    return [Choice(str(n), item.bytes, item.loss) for n, item in enumerate(found) if item.component == component]


def _best(found: Sequence[Measured], max_bytes: int | None, max_loss: float | None) -> Chosen | None:
    """By the means alone; None where nothing stays within the limits."""
    best: Mixture[Component] | None = None
    for tower in _choices(found, "vision"):
        try:
            picked = [
                pick(
                    combine({"vision": [tower], engine: _choices(found, engine)}),
                    max_bytes=max_bytes,
                    max_loss=max_loss,
                )
                for engine in _engines(found)
            ]
        except MixtureError:
            continue
        whole: Mixture[Component] = Mixture(
            {part: item for mixture in picked for part, item in mixture.choices.items()}
        )
        if best is None or _order(whole, max_loss) < _order(best, max_loss):
            best = whole
    return None if best is None else {part: found[int(choice.name)] for part, choice in best.choices.items()}


def _order(mixture: Mixture[Component], max_loss: float | None) -> tuple[float, float]:
    """Smaller first where the loss is limited, else of less loss first."""
    pair = (float(mixture.bytes), mixture.loss)
    return pair if max_loss is not None else pair[::-1]
