"""In a child process with rknn-toolkit2's Python: an ONNX graph is compiled, and run by the toolkit's simulator.

The simulator runs what was compiled in the same process, and no file.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from rknn.api import RKNN

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def load(request: Mapping[str, Any]) -> _Compiled:
    """Compile a graph.

    Args:
        request: ``file`` (opset 19 at most), ``chip``, ``config`` (more settings of the compiler), ``dataset`` (a file
            that names one .npy for each sample; empty: floats of 16 bits), ``hybrid`` (leave layers that lose most in
            16 bits), ``out`` (the file to write, or empty), and ``inputs`` and ``outputs``: name, type and shape.
    """
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        toolkit = RKNN(verbose=False)
        samples = request["dataset"]
        steps = {
            "it cannot be set up": lambda: toolkit.config(target_platform=request["chip"], **request["config"]),
            "it cannot read the graph": lambda: toolkit.load_onnx(request["file"]),
            "it cannot compile the graph": lambda: toolkit.build(
                do_quantization=bool(samples), dataset=samples or None, auto_hybrid=request["hybrid"]
            ),
            "it cannot write the file": lambda: toolkit.export_rknn(request["out"]) if request["out"] else 0,
            "its simulator cannot be started": toolkit.init_runtime,
        }
        for what, step in steps.items():
            try:
                status = step()
            except Exception as error:  # the toolkit's own classes share no base but this
                raise OSError(f"{what}: {_complaint(log) or error}") from error
            if status not in (0, None):
                raise OSError(f"{what}: {_complaint(log) or status}")
    return _Compiled(toolkit, {kind: request[kind] for kind in ("inputs", "outputs")})


def _complaint(log: Any) -> str:
    """The last error that the toolkit printed."""
    sys.stdout.flush()
    sys.stderr.flush()
    log.seek(0)
    lines = [_COLOURS.sub("", line).strip() for line in log.read().decode(errors="replace").splitlines()]
    errors = [line[2:] for line in lines if line.startswith("E ") and "version" not in line and "Traceback" not in line]
    return errors[0] if errors else ""


class _Compiled:
    """A compiled graph on the simulator, as the worker serves it; its inputs are as on a board."""

    def __init__(self, toolkit: Any, ports: dict[str, Any]) -> None:
        self._toolkit, self.ports = toolkit, ports
        self.facts: dict[str, Any] = {}

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The embeddings."""
        (input_name, *_), (output_name, _, shape) = self.ports["inputs"][0], self.ports["outputs"][0]
        pixels = np.ascontiguousarray(arrays[input_name].transpose(0, 2, 3, 1))
        found = self._toolkit.inference(inputs=[pixels], data_format=["nhwc"])
        if not found:
            raise OSError("the run failed")
        return {output_name: np.asarray(found[0], np.float32).reshape(shape)}
