"""Logits to token id: penalties, filters and a seeded draw.

The order of steps and their meaning follow Hugging Face's generation: repetition penalty, temperature, top-k, top-p,
min-p. Sources: CTRL (Keskar et al. 2019) for the repetition penalty, Holtzman et al. 2020 for top-p (nucleus sampling),
Nguyen et al. 2024 for min-p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_mllm.arguments import require_numbers
from edge_mllm.arrays import FloatArray
from edge_mllm.errors import SettingError

_FIRST_CANDIDATES = 256


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How the next token is chosen. The defaults are greedy decoding.

    Raises:
        SettingError: A value is outside its range.
    """

    temperature: float = 0.0
    """0 takes the most likely token; above, logits are divided by it before the draw."""
    top_k: int = 0
    """Draw among the k most likely tokens only; 0 is off."""
    top_p: float = 1.0
    """Draw among the smallest set of tokens whose probabilities reach this sum; 1 is off."""
    min_p: float = 0.0
    """Drop tokens less likely than this share of the most likely one; 0 is off."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that already stand in the prompt or the answer less likely; 1 is off."""
    seed: int | None = None
    """Same seed, same draw; None draws differently every time."""

    def __post_init__(self) -> None:
        require_numbers(
            Real,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
        )
        _check("temperature", self.temperature, 0.0, math.inf)
        _check("top_k", self.top_k, 0, math.inf)
        _check("top_p", self.top_p, 0.0, 1.0, open_low=True)
        _check("min_p", self.min_p, 0.0, 1.0)
        _check("repetition_penalty", self.repetition_penalty, 0.0, math.inf, open_low=True)
        if self.seed is not None:
            _check("seed", self.seed, 0, math.inf)


def _check(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    finite = math.isfinite(value)
    if not finite or value > high or value < low or (open_low and value == low):
        bound = f"{'above' if open_low else 'at least'} {low:g}" + (f" and at most {high:g}" if high < math.inf else "")
        raise SettingError(f"{name} is {value}; it must be {bound}")


class LogitsProcessor(Protocol):
    """Changes logits before the choice, for example masks what a grammar does not allow."""

    def __call__(self, logits: FloatArray, generated: Sequence[int]) -> FloatArray:
        """Return logits float32 [n_vocab]; ``generated`` holds the answer's tokens so far."""
        ...


class Sampler:
    """Chooses tokens for one answer."""

    def __init__(
        self,
        options: SamplingOptions,
        *,
        prompt: Sequence[int] = (),
        processors: Sequence[LogitsProcessor] = (),
    ) -> None:
        """Start an answer.

        Args:
            options: How to choose.
            prompt: Token ids of the prompt, which the repetition penalty counts as already said.
            processors: Applied in order, before everything else.
        """
        self._options = options
        self._processors = tuple(processors)
        self._generator = np.random.default_rng(options.seed)
        self._generated: list[int] = []
        self._said: set[int] = set(prompt) if options.repetition_penalty != 1.0 else set()

    def __call__(self, logits: FloatArray) -> int:
        """Choose the next token from logits float32 [n_vocab] and remember it."""
        for processor in self._processors:
            logits = processor(logits, self._generated)
        if self._options.repetition_penalty != 1.0:
            logits = _penalise(logits, self._said, self._options.repetition_penalty)
        token = int(np.argmax(logits)) if self._options.temperature == 0.0 else self._draw(logits)
        self._generated.append(token)
        self._said.add(token)
        return token

    def _draw(self, logits: FloatArray) -> int:
        ids, probabilities = candidates(logits, self._options)
        edges = np.cumsum(probabilities)
        drawn = np.searchsorted(edges, self._generator.random() * edges[-1], side="right")
        return int(ids[min(int(drawn), len(ids) - 1)])


def candidates(logits: FloatArray, options: SamplingOptions) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Tokens left after the filters, most likely first, with their probabilities (which add up to 1).

    Args:
        logits: float32 [n_vocab].
        options: With a temperature above 0.

    Returns:
        Token ids int64 [n] and probabilities float64 [n].
    """
    scaled = logits.astype(np.float64) / options.temperature
    scaled -= scaled.max()
    ids = _top_ids(scaled, options.top_k)
    weights = np.exp(scaled) if ids is None else np.exp(scaled[ids])
    total = float(weights.sum())
    if ids is None:
        ids = _nucleus(weights, options.top_p * total, options.min_p)
        weights = weights[ids]
    if options.top_p < 1.0:
        before = np.cumsum(weights) - weights
        keep = before < options.top_p * total
        ids, weights = ids[keep], weights[keep]
    if options.min_p > 0.0:
        keep = weights >= options.min_p * weights[0]
        ids, weights = ids[keep], weights[keep]
    return ids, weights / weights.sum()


def _top_ids(scaled: npt.NDArray[np.float64], top_k: int) -> npt.NDArray[np.int64] | None:
    """The k best ids, best first; None where top-k is off."""
    if not 0 < top_k < len(scaled):
        return None
    best = np.argpartition(scaled, -top_k)[-top_k:]
    return best[np.argsort(-scaled[best], kind="stable")].astype(np.int64)


def _nucleus(weights: npt.NDArray[np.float64], mass: float, min_p: float) -> npt.NDArray[np.int64]:
    """Enough of the best ids, best first, to hold ``mass`` and all that min-p keeps: the rest need not be sorted."""
    count = _FIRST_CANDIDATES if mass < weights.sum() or min_p > 0.0 else len(weights)
    while count < len(weights):
        best = np.argpartition(weights, -count)[-count:]
        enough_mass = mass < weights.sum() and weights[best].sum() >= mass
        enough_min_p = min_p > 0.0 and weights[best].min() < min_p * weights.max()
        if enough_mass or enough_min_p:
            return best[np.argsort(-weights[best], kind="stable")].astype(np.int64)
        count *= 8
    return np.argsort(-weights, kind="stable").astype(np.int64)


def _penalise(logits: FloatArray, said: set[int], penalty: float) -> FloatArray:
    """Divide positive and multiply negative logits of tokens already said (Keskar et al. 2019)."""
    ids = np.fromiter(said, dtype=np.int64, count=len(said))
    changed = logits.copy()
    chosen = logits[ids]
    changed[ids] = np.where(chosen > 0, chosen / penalty, chosen * penalty)
    return changed
