"""Our side of the process that holds a graph on an NPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.machine.npu import NpuError
from edge_mllm.tower.engines import Port

WORKER = Path(__file__).with_name("worker.py")
Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class NpuLoad:
    """What a process is to hold, and through which library."""

    file: Path
    backend: Path
    """Python file that opens it, see :mod:`edge_mllm.tower.npu.worker`."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """What the backend needs to know beside the file, as JSON has it."""
    # -P: the folder of the worker must not come first in the search path of the child.
    python: tuple[str, ...] = (sys.executable, "-P")


class NpuProcess:
    """A process that holds one tower on an NPU, or on its simulator.

    Args:
        load: What to hold.

    Raises:
        NpuError: The library refuses it, or the process cannot be started or ended.
    """

    def __init__(self, load: NpuLoad) -> None:
        self.file = load.file
        try:
            self._child = subprocess.Popen(
                [*load.python, str(WORKER), str(load.backend)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
            )
        except OSError as error:
            raise NpuError(f"'{load.python[0]}' cannot be started ({error.strerror})") from error
        self._end = weakref.finalize(self, _end, self._child)
        try:
            found, _ = self._ask({"do": "load", "file": str(load.file), **load.request}, {})
        except NpuError:
            self.close()
            raise
        ports = found["ports"]
        self.inputs, self.outputs = ([Port(*port) for port in ports[kind]] for kind in ("inputs", "outputs"))
        self.facts: dict[str, Any] = found["facts"]
        """What the backend tells beside."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs.

        Raises:
            NpuError: The run failed, or the process ended.
        """
        return self._ask({"do": "run"}, feeds)[1]

    def close(self) -> None:
        """End the process."""
        self._end()

    def _ask(self, request: dict[str, Any], arrays: Mapping[str, Array]) -> tuple[dict[str, Any], dict[str, Array]]:
        sent = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
        request["arrays"] = {name: [values.dtype.str, list(values.shape)] for name, values in sent.items()}
        questions, answers = self._child.stdin, self._child.stdout
        assert questions is not None and answers is not None  # noqa: S101  (pipes, as asked for above)
        try:
            questions.write(json.dumps(request).encode() + b"\n")
            for values in sent.values():
                questions.write(values.data)
            questions.flush()
            line = answers.readline()
        except (OSError, ValueError):  # it ended while we wrote, or was closed
            line = b""
        if not line:
            raise NpuError(f"the process that ran {self.file.name} on the NPU ended ({self._why()})")
        answer = json.loads(line)
        if "error" in answer:
            raise NpuError(f"the NPU's library refuses {self.file.name} ({answer['error']})")
        return answer, {name: _read(answers, *about) for name, about in answer["arrays"].items()}

    def _why(self) -> str:
        self.close()
        code = self._child.returncode
        if code is not None and code < 0:
            return signal.Signals(-code).name
        return f"exit status {code}"


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a process that has nothing to lose; one that has ended keeps its status."""
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            try:
                stream.close()
            except OSError:  # what was not written yet
                continue
    try:
        child.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _read(stream: Any, kind: str, shape: Sequence[int]) -> Array:
    values = np.empty(shape, kind)
    data = stream.read(values.nbytes)
    if len(data) != values.nbytes:
        raise NpuError("the process that ran the tower on the NPU ended while it answered")
    values.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)
    return values


class NpuSession:
    """A tower in such a process, as :class:`edge_mllm.tower.engines.TowerSession`: any number of tiles.

    Args:
        process: With a graph whose first axes are ``tiles``.
        tiles: Tiles of one run; a last group of fewer is filled up with zeros.
    """

    def __init__(self, process: NpuProcess, tiles: int) -> None:
        self._process, self._tiles = process, tiles
        self._inputs, self._outputs = (
            [Port(port.name, port.type, ["tiles", *port.shape[1:]]) for port in ports]
            for ports in (process.inputs, process.outputs)
        )

    def get_inputs(self) -> Sequence[Port]:
        """The pixels, with a free first axis."""
        return self._inputs

    def get_outputs(self) -> Sequence[Port]:
        """The embeddings, with a free first axis."""
        return self._outputs

    def run(self, names: list[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Outputs of these names; every input has as many tiles."""
        count = len(next(iter(feeds.values())))
        groups = []
        for first in range(0, count, self._tiles):
            group = {name: _filled(values[first : first + self._tiles], self._tiles) for name, values in feeds.items()}
            found = self._process.run(group)
            groups.append([found[name][: count - first] for name in names])
        return [np.concatenate(parts) for parts in zip(*groups, strict=True)]

    def close(self) -> None:
        """End the process."""
        self._process.close()


def _filled(values: Array, tiles: int) -> Array:
    if len(values) == tiles:
        return values
    return np.concatenate([values, np.zeros((tiles - len(values), *values.shape[1:]), values.dtype)])
