"""The child process that holds a tower on an NPU: vendors' libraries can end their process, and then it is this one.

``worker.py BACKEND``: the backend is a Python file with a function ``load(request)``, which gives an object with
``ports`` (inputs and outputs, each as name, type and shape), ``facts`` and ``run(arrays)``. Messages are a line of
JSON, followed by the bytes of the arrays that it announces: in on standard input, out on the file descriptor that was
standard output before the libraries could print to it. Run by path and by other Pythons than ours, so it imports
nothing of this package.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np


def main() -> int:
    """Serve until the input ends; exit status 0."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    questions = sys.stdin.buffer
    held: Any = None
    while line := questions.readline():
        request = json.loads(line)
        arrays = _read(questions, request.pop("arrays", {}))
        try:
            if request.pop("do") == "load":
                held = _backend(sys.argv[1]).load(request)
                _answer(answers, {"ports": held.ports, "facts": held.facts}, {})
            else:
                _answer(answers, {}, held.run(arrays))
        except Exception as error:  # the libraries' classes share no base but this
            _answer(answers, {"error": " ".join(str(error).split())[:400] or type(error).__name__}, {})
    return 0


def _backend(path: str) -> Any:
    """The module at a path."""
    spec = importlib.util.spec_from_file_location("npu_backend", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _read(stream: BinaryIO, announced: Mapping[str, tuple[str, list[int]]]) -> dict[str, Any]:
    return {
        name: np.frombuffer(stream.read(_bytes(kind, shape)), kind).reshape(shape)
        for name, (kind, shape) in announced.items()
    }


def _bytes(kind: str, shape: list[int]) -> int:
    return int(np.dtype(kind).itemsize * np.prod(shape, dtype=np.int64))


def _answer(stream: BinaryIO, answer: dict[str, Any], arrays: Mapping[str, Any]) -> None:
    answer["arrays"] = {name: [values.dtype.str, list(values.shape)] for name, values in arrays.items()}
    stream.write(json.dumps(answer).encode() + b"\n")
    for values in arrays.values():
        stream.write(np.ascontiguousarray(values).data)
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
