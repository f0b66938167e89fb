"""In the child process: a compiled tower on a Rockchip NPU, through rknn-toolkit-lite2 on the board itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rknnlite.api import RKNNLite


def load(request: Mapping[str, Any]) -> _Tower:
    """Open a compiled tower.

    Args:
        request: ``file``, and ``inputs`` and ``outputs``, one of each: name, type and shape, which the library does not
            tell.
    """
    runtime = RKNNLite(verbose=False)
    if runtime.load_rknn(request["file"]) != 0:
        raise OSError("the file cannot be read")
    if runtime.init_runtime() != 0:
        raise OSError("the driver or librknnrt.so does not take it; the kernel's log and RKNN_LOG_LEVEL=4 say more")
    return _Tower(runtime, {kind: request[kind] for kind in ("inputs", "outputs")})


class _Tower:
    """An open tower, as the worker serves it."""

    def __init__(self, runtime: Any, ports: dict[str, Any]) -> None:
        self._runtime, self.ports = runtime, ports
        self.facts: dict[str, Any] = {}

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The embeddings. The library takes four axes as [tiles, height, width, 3]."""
        (input_name, *_), (output_name, _, shape) = self.ports["inputs"][0], self.ports["outputs"][0]
        pixels = np.ascontiguousarray(arrays[input_name].transpose(0, 2, 3, 1))
        found = self._runtime.inference(inputs=[pixels], data_type="float32", data_format="nhwc")
        if not found:
            raise OSError("the run failed")
        return {output_name: np.asarray(found[0], np.float32).reshape(shape)}
