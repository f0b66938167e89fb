"""In a child process with rknn-toolkit2's Python: an ONNX graph is compiled, and run by the toolkit's simulator.

The simulator runs what was compiled in the same process, and no file.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rknn.api import RKNN

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_OPERATOR = re.compile(r"^D RKNN: \[[\d:.]+\] \d+ +(\w+) +\w+ +(NPU|CPU) ")
"""A line of the compiler's table of operators, with where each will run."""
_ENDS = ("InputOperator", "OutputOperator")
"""What copies the tensors in and out; always on the CPU."""


def load(request: Mapping[str, Any]) -> _Compiled:
    """Compile a graph.

    Args:
        request: ``file`` (opset 19 at most), ``chip``, ``config`` (more settings of the compiler), ``dataset`` (a file
            that names one .npy for each sample; empty: floats of 16 bits), ``hybrid`` (leave layers that lose most in
            16 bits), ``out`` (the file to write, or empty), and ``inputs`` and ``outputs``: name, type and shape.
    """
    file, samples, out = (request[name] and str(Path(request[name]).absolute()) for name in ("file", "dataset", "out"))
    with _own_folder(), tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        toolkit = RKNN(verbose=True)
        steps = {
            "it cannot be set up": lambda: toolkit.config(target_platform=request["chip"], **request["config"]),
            "it cannot read the graph": lambda: toolkit.load_onnx(file),
            "it cannot compile the graph": lambda: toolkit.build(
                do_quantization=bool(samples), dataset=samples or None, auto_hybrid=request["hybrid"]
            ),
            "it cannot write the file": lambda: toolkit.export_rknn(out) if out else 0,
            "its simulator cannot be started": toolkit.init_runtime,
        }
        for what, step in steps.items():
            try:
                status = step()
            except Exception as error:  # the toolkit's own classes share no base but this
                raise OSError(f"{what}: {_complaint(log) or error}") from error
            if status not in (0, None):
                raise OSError(f"{what}: {_complaint(log) or status}")
        operators = operators_of(_lines(log))
    return _Compiled(toolkit, {kind: request[kind] for kind in ("inputs", "outputs")}, operators)


@contextlib.contextmanager
def _own_folder() -> Iterator[None]:
    """Where a compiler that tells its operators leaves the graphs of its steps."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            yield
        finally:
            os.chdir(before)


def operators_of(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Kind of every operator and ``NPU`` or ``CPU``, from the last table of operators; empty without one."""
    found: list[tuple[str, str]] = []
    for line in lines:
        operator = _OPERATOR.match(line)
        if operator and operator[1] == _ENDS[0]:  # the first of a table
            found = []
        elif operator and operator[1] not in _ENDS:
            found.append((operator[1], operator[2]))
    return found


def _complaint(log: Any) -> str:
    """The first error that the toolkit printed."""
    told = [line[2:] for line in _lines(log) if line.startswith("E ")]
    errors = [line for line in told if "version" not in line and "Traceback" not in line]
    return errors[0] if errors else ""


def _lines(log: Any) -> list[str]:
    """What the toolkit printed."""
    sys.stdout.flush()
    sys.stderr.flush()
    log.seek(0)
    return [_COLOURS.sub("", line).strip() for line in log.read().decode(errors="replace").splitlines()]


class _Compiled:
    """A compiled graph on the simulator, as the worker serves it; its inputs are as on a board."""

    def __init__(self, toolkit: Any, ports: dict[str, Any], operators: list[tuple[str, str]]) -> None:
        self._toolkit, self.ports = toolkit, ports
        self.facts: dict[str, Any] = {"operators": operators}

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The embeddings."""
        (input_name, *_), (output_name, _, shape) = self.ports["inputs"][0], self.ports["outputs"][0]
        pixels = np.ascontiguousarray(arrays[input_name].transpose(0, 2, 3, 1))
        found = self._toolkit.inference(inputs=[pixels], data_format=["nhwc"])
        if not found:
            raise OSError("the run failed")
        return {output_name: np.asarray(found[0], np.float32).reshape(shape)}
