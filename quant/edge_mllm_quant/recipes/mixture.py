"""Choose how each part is stored when every choice has a size and a measured loss. Pure functions on numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from edge_mllm.errors import SettingError

Part = TypeVar("Part", bound=str)


class MixtureError(SettingError):
    """No mixture stays within the limits."""


@dataclass(frozen=True)
class Choice:
    """One way of storing one part."""

    name: str
    bytes: int
    loss: float
    """Nats of KL divergence per token that this choice adds."""


@dataclass(frozen=True)
class Mixture(Generic[Part]):
    """A choice for every part; sizes and losses add up."""

    choices: Mapping[Part, Choice] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of all parts."""
        return sum(choice.bytes for choice in self.choices.values())

    @property
    def loss(self) -> float:
        """Sum over the parts: small losses of independent parts add up to first order."""
        return sum(choice.loss for choice in self.choices.values())


def front(mixtures: Iterable[Mixture[Part]]) -> list[Mixture[Part]]:
    """Those that no other one beats in size without being worse in loss: growing size, falling loss."""
    best: list[Mixture[Part]] = []
    for mixture in sorted(mixtures, key=lambda item: (item.bytes, item.loss)):
        if not best or mixture.loss < best[-1].loss:
            best.append(mixture)
    return best


def combine(parts: Mapping[Part, Sequence[Choice]]) -> list[Mixture[Part]]:
    """The front over all mixtures of one choice for each part.

    Exact: a mixture that is beaten before the next part is added stays beaten, because sizes and losses only add up.
    """
    found: list[Mixture[Part]] = [Mixture()]
    for part, choices in parts.items():
        found = front(Mixture({**mixture.choices, part: choice}) for mixture in found for choice in choices)
    return found


def spread(mixtures: Sequence[Mixture[Part]], most: int) -> list[Mixture[Part]]:
    """At most so many of a front, from its smallest to its largest, even in size."""
    if len(mixtures) <= most:
        return [*mixtures]
    low, high = mixtures[0].bytes, mixtures[-1].bytes
    wanted = [low + (high - low) * step / (most - 1) for step in range(most)]
    nearest = {min(range(len(mixtures)), key=lambda place: abs(mixtures[place].bytes - size)) for size in wanted}
    return [mixtures[place] for place in sorted(nearest)]


def pick(mixtures: Iterable[Mixture[Part]], *, max_bytes: int | None, max_loss: float | None) -> Mixture[Part]:
    """The smallest within ``max_loss``; without that limit the one of least loss within ``max_bytes``.

    Raises:
        MixtureError: None is within the limits; the message says what can be had.
    """
    everything = front(mixtures)
    small = [item for item in everything if max_bytes is None or item.bytes <= max_bytes]
    good = [item for item in small if max_loss is None or item.loss <= max_loss]
    if good:
        return good[-1] if max_loss is None else good[0]
    if not small:
        raise MixtureError(
            f"nothing fits into {max_bytes} bytes; the smallest mixture has {everything[0].bytes} "
            f"(loss {everything[0].loss:.4f})"
        )
    within = "" if max_bytes is None else f" within {max_bytes} bytes"
    raise MixtureError(
        f"no mixture{within} loses at most {max_loss:g} nats; the best there loses {small[-1].loss:.4f} "
        f"with {small[-1].bytes} bytes"
    )
