"""Key and value buffers of an ONNX decoder, bound in place: the graph appends to them and nothing is copied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.decoders.ort.states import OrtStates
from edge_mllm.errors import EngineError
from edge_mllm.machine.ort import element_type

_PREFIX, _PRESENT, _APPENDED = "past_key_values.", "present.", "appended."


class OrtCache:
    """One buffer [1, kv_heads, capacity, head_dim] for every past/present pair, grown on demand.

    Past and present are bound to the same memory; GroupQueryAttention then writes new keys and values behind the old
    ones. Fresh buffers are zero pages that the system provides when they are first written. A graph may give the rows
    of many tokens as outputs ``appended.N.key`` and ``.value`` instead, which are put behind the old ones then.
    """

    def __init__(self, session: Any, graph: Path, head_dim: int | None) -> None:
        """Read the cache's inputs from a session.

        Args:
            session: onnxruntime.InferenceSession.
            graph: For messages.
            head_dim: Takes the place of a symbolic last dimension.
        """
        self._names, self._shapes, self._types, self._appended = _read_ports(session, graph, head_dim)
        self._buffers: list[npt.NDArray[Any]] = []
        self.states = OrtStates(session, graph)
        """Of layers that keep no keys and values."""
        self.capacity = 0

    def suits(self, session: Any, graph: Path, head_dim: int | None) -> bool:
        """Whether another session, given as to a new cache, keeps the same: then the buffers can be bound there too."""
        ports = (self._names, self._shapes, self._types, self._appended)
        return ports == _read_ports(session, graph, head_dim) and self.states.suits(session, graph)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers of keys and values."""
        return sum(buffer.nbytes for buffer in self._buffers)

    @property
    def cell_bytes(self) -> int:
        """Bytes of one cell in all buffers."""
        pairs = zip(self._shapes, self._types, strict=True)
        return sum(heads * width * np.dtype(dtype).itemsize for (heads, width), dtype in pairs)

    def grow(self, capacity: int, keep: int) -> None:
        """Make room for ``capacity`` cells and keep the first ``keep``."""
        old: list[npt.NDArray[Any] | None] = [*self._buffers] or [None] * len(self._names)
        self._buffers = []
        for position, ((heads, width), dtype) in enumerate(zip(self._shapes, self._types, strict=True)):
            buffer = np.zeros((1, heads, capacity, width), dtype)
            before, old[position] = old[position], None  # at most one pair of old and new buffer at a time
            if before is not None:
                buffer[:, :, :keep] = before[:, :, :keep]
            self._buffers.append(buffer)
        self.capacity = capacity

    def copy(self, count: int) -> tuple[npt.NDArray[Any], ...]:
        """The first ``count`` cells of every buffer, then the states, which must have seen as many tokens."""
        return tuple(buffer[:, :, :count].copy() for buffer in self._buffers) + (self.states.copy() if count else ())

    def fill(self, arrays: Sequence[npt.NDArray[Any]], count: int) -> None:
        """Write what :meth:`copy` gave back to the first ``count`` cells.

        Raises:
            EngineError: The arrays are not of this graph.
        """
        places = [buffer[:, :, :count] for buffer in self._buffers]
        if count == 0:
            self.states.clear()
            return
        arrays, states = arrays[: len(places)], arrays[len(places) :]
        if [(each.shape, each.dtype) for each in arrays] != [(each.shape, each.dtype) for each in places]:
            raise EngineError("the saved cache is not of this decoder")
        self.states.fill(states, count)
        for place, array in zip(places, arrays, strict=True):
            place[...] = array

    def bind(self, binding: Any) -> None:
        """Bind every buffer as past and as present, and the states for one run."""
        self.states.bind(binding)
        for (past, present), buffer in zip(self._names, self._buffers, strict=True):
            place = ("cpu", 0, buffer.dtype.type, buffer.shape, buffer.ctypes.data)
            binding.bind_input(past, *place)
            binding.bind_output(present, *place)
        for name in self._appended:
            binding.bind_output(name, "cpu")

    def take(self, binding: Any, past: int, count: int) -> None:
        """After a run over ``count`` tokens behind ``past`` cells: keep what it gave apart from the buffers."""
        self.states.take(count)
        if self._appended:
            rows = binding.get_outputs()[-len(self._appended) :]
            for buffer, row in zip(self._buffers, rows, strict=True):
                if row.shape()[2]:
                    buffer[:, :, past : past + count] = row.numpy()


_Ports = tuple[list[tuple[str, str]], list[tuple[int, int]], list[type[np.generic]], list[str]]


def _read_ports(session: Any, graph: Path, head_dim: int | None) -> _Ports:
    """Names of past and present, heads and width, type of every buffer; outputs with rows of many tokens, if any."""
    names: list[tuple[str, str]] = []
    shapes: list[tuple[int, int]] = []
    types: list[type[np.generic]] = []
    outputs = {node.name for node in session.get_outputs()}
    for node in session.get_inputs():
        if not node.name.startswith(_PREFIX):
            continue
        present = _PRESENT + node.name.removeprefix(_PREFIX)
        width = node.shape[3] if isinstance(node.shape[3], int) else head_dim
        if present not in outputs or not isinstance(node.shape[1], int) or width is None:
            raise EngineError(f"{graph.name}: the cache input '{node.name}' {node.shape} cannot be bound in place")
        names.append((node.name, present))
        shapes.append((node.shape[1], width))
        types.append(element_type(node, graph))
    appended = [_APPENDED + past.removeprefix(_PREFIX) for past, _ in names]
    return names, shapes, types, appended if outputs.issuperset(appended) else []
