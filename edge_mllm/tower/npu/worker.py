"""The child process that holds a graph on an NPU: Qualcomm's libraries can end their process, and then it is this one.

Messages are a line of JSON, followed by the bytes of the arrays that it announces: in on standard input, out on the
file descriptor that was standard output before the libraries could print to it. Run by path, so it imports nothing of
this package.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

PROVIDER = "QNNExecutionProvider"
"""The only name under which the plug-in finds its own nodes again."""


def main() -> int:
    """Serve until the input ends; exit status 0."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    questions = sys.stdin.buffer
    session: Any = None
    while line := questions.readline():
        request = json.loads(line)
        arrays = _read(questions, request.pop("arrays", {}))
        try:
            if request["do"] == "load":
                session = _load(request)
                _answer(answers, {"ports": _ports(session), "nodes": _nodes(session, request["assigned"])}, {})
            else:
                names = [port.name for port in session.get_outputs()]
                _answer(answers, {}, dict(zip(names, session.run(names, arrays), strict=True)))
        except Exception as error:  # the libraries' classes share no base but this
            _answer(answers, {"error": " ".join(str(error).split())[:400] or type(error).__name__}, {})
    return 0


def _load(request: Mapping[str, Any]) -> Any:
    import onnxruntime

    onnxruntime.register_execution_provider_library(PROVIDER, request["library"])
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    for name, value in request["config"].items():
        options.add_session_config_entry(name, value)
    npus = [device for device in devices if device.device.type == onnxruntime.OrtHardwareDeviceType.NPU]
    options.add_provider_for_devices((npus or devices)[:1], request["options"])
    return onnxruntime.InferenceSession(request["graph"], options)


def _ports(session: Any) -> dict[str, list[list[Any]]]:
    found = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    return {kind: [[port.name, port.type, list(port.shape)] for port in ports] for kind, ports in found.items()}


def _nodes(session: Any, wanted: bool) -> list[list[str]]:
    """Provider, name and kind of every node, where that was asked for."""
    if not wanted:
        return []
    return [
        [group.ep_name, node.name, node.op_type]
        for group in session.get_provider_graph_assignment_info()
        for node in group.get_nodes()
    ]


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
