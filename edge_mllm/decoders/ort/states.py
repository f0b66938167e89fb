"""States of layers that keep no keys and values: two buffers for each, read from one and written to the other.

A run that fails or is interrupted leaves the state that it began with, which an operator that overwrites its own input
would not. Which tokens a state has seen is noted beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.errors import EngineError
from edge_mllm.machine.ort import element_type

PREFIX, _PRESENT = "past.", "present."


class OrtStates:
    """States of fixed size, one pair of inputs and outputs ``past.N.KIND`` and ``present.N.KIND`` for each."""

    def __init__(self, session: Any, graph: Path) -> None:
        """Read the states' inputs from a session.

        Raises:
            EngineError: A state has no fixed size, or does not come out again.
        """
        self._ports = read_states(session, graph)
        self._now, self._next = self._empty(), self._empty()
        self.seen = 0
        """Tokens that the states have seen."""

    def __bool__(self) -> bool:
        return bool(self._ports)

    def suits(self, session: Any, graph: Path) -> bool:
        """Whether another session keeps the same states."""
        return self._ports == read_states(session, graph)

    @property
    def nbytes(self) -> int:
        """Bytes of one copy of all states."""
        return sum(state.nbytes for state in self._now)

    def bind(self, binding: Any) -> None:
        """Have the next run read the present states, and write the ones that follow."""
        for (name, _, _), now, after in zip(self._ports, self._now, self._next, strict=True):
            binding.bind_input(name, "cpu", 0, now.dtype.type, now.shape, now.ctypes.data)
            binding.bind_output(
                _PRESENT + name.removeprefix(PREFIX), "cpu", 0, after.dtype.type, after.shape, after.ctypes.data
            )

    def take(self, count: int) -> None:
        """A run over ``count`` tokens succeeded: what it wrote are the present states."""
        if self._ports:
            self._now, self._next, self.seen = self._next, self._now, self.seen + count

    def clear(self) -> None:
        """No token was seen."""
        self.fill(self._empty(), 0)

    def copy(self) -> tuple[npt.NDArray[Any], ...]:
        """The present states, in the order of the graph's inputs."""
        return tuple(state.copy() for state in self._now)

    def fill(self, arrays: Sequence[npt.NDArray[Any]], seen: int) -> None:
        """Put back what :meth:`copy` gave after ``seen`` tokens.

        Raises:
            EngineError: The arrays are not of this graph.
        """
        if [(each.shape, each.dtype) for each in arrays] != [(each.shape, each.dtype) for each in self._now]:
            raise EngineError("the saved states are not of this decoder")
        for place, array in zip(self._now, arrays, strict=True):
            place[...] = array
        self.seen = seen

    def _empty(self) -> list[npt.NDArray[Any]]:
        return [np.zeros(shape, dtype) for _, shape, dtype in self._ports]


def read_states(session: Any, graph: Path) -> list[tuple[str, tuple[int, ...], type[np.generic]]]:
    """Name, shape and type of every state that a graph takes."""
    outputs = {node.name for node in session.get_outputs()}
    found = []
    for node in session.get_inputs():
        if not node.name.startswith(PREFIX):
            continue
        present, sides = _PRESENT + node.name.removeprefix(PREFIX), node.shape[1:]
        if present not in outputs or not sides or not all(isinstance(side, int) for side in sides):
            raise EngineError(f"{graph.name}: the state '{node.name}' {node.shape} cannot be handed on")
        found.append((node.name, (1, *sides), element_type(node, graph)))
    return found
