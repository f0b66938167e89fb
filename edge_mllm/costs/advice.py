"""What the costs of a model come to in one sentence: what fits, what is needed, which smaller model would do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_mllm.costs.estimate import Cost

Smaller = Callable[[int], tuple[str, int] | None]
"""A limit in bytes -> name of the largest known model within it and the bytes it needs."""


@dataclass(frozen=True)
class Advice:
    """One sentence, and whether the model fits at all."""

    text: str
    fits: bool


def advise(found: Sequence[Cost], limit: int, *, given: bool, smaller: Smaller) -> Advice:
    """Choose the way of storing to recommend: the default first, else the one that answers soonest of those that fit.

    Args:
        found: All ways of storing, defaults first.
        limit: Bytes of memory.
        given: The limit was asked for; else it is the device's memory.
        smaller: Asked where nothing fits.
    """
    memory = f"{_size(limit)} of memory" if given else f"the device's {_size(limit)}"
    fitting = [cost for cost in found if cost.memory_bytes <= limit]
    if not fitting:
        least = min(found, key=lambda cost: cost.memory_bytes)
        needs = f"Nothing fits in {memory}: the smallest way, {_named(least)}, needs {_size(least.memory_bytes)}."
        other = smaller(limit)
        advice = "Take a smaller model" if other is None else f"{other[0]} fits with {_size(other[1])}"
        return Advice(f"{needs} {advice}.", fits=False)
    best = min(fitting, key=_preference)
    speed = ""
    if best.ttft_s is not None and best.decode_tps is not None:
        speed = f", first word after about {best.ttft_s:.2g} s, then {best.decode_tps:.0f} tokens/s"
    counted = "" if len(fitting) == len(found) else f" ({len(fitting)} of {len(found)} ways of storing it do)"
    return Advice(f"Fits in {memory}{counted}: {_named(best)} needs {_size(best.memory_bytes)}{speed}.", fits=True)


def _preference(cost: Cost) -> tuple[bool, float, int]:
    usual = cost.decoder.default and cost.tower.default
    return not usual, cost.ttft_s if cost.ttft_s is not None else float("inf"), cost.memory_bytes


def _named(cost: Cost) -> str:
    return f"{cost.engine} {cost.decoder.prefill} with a tower in {cost.tower.recipe}"


def _size(count: int) -> str:
    return f"{count / 1e9:.2g} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
