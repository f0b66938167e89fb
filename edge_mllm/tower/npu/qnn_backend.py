"""In the child process: a graph on a Hexagon NPU, or on its simulator, through ONNX Runtime's plug-in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime

PROVIDER = "QNNExecutionProvider"
"""The only name under which the plug-in finds its own nodes again."""


def load(request: Mapping[str, Any]) -> _Graph:
    """Open a graph.

    Args:
        request: ``file``, ``library`` (the plug-in), ``config`` (of the session), ``options`` (of the provider), and
            whether it is to be told which node each provider has (``assigned``).
    """
    onnxruntime.register_execution_provider_library(PROVIDER, request["library"])
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    for name, value in request["config"].items():
        options.add_session_config_entry(name, value)
    npus = [device for device in devices if device.device.type == onnxruntime.OrtHardwareDeviceType.NPU]
    options.add_provider_for_devices((npus or devices)[:1], request["options"])
    return _Graph(onnxruntime.InferenceSession(request["file"], options), assigned=request["assigned"])


class _Graph:
    """An open graph, as the worker serves it."""

    def __init__(self, session: Any, *, assigned: bool) -> None:
        self._session = session
        self._names = [port.name for port in session.get_outputs()]
        found = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
        self.ports = {
            kind: [[each.name, each.type, list(each.shape)] for each in ports] for kind, ports in found.items()
        }
        self.facts = {"nodes": _nodes(session) if assigned else []}

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs."""
        return dict(zip(self._names, self._session.run(self._names, dict(arrays)), strict=True))


def _nodes(session: Any) -> list[list[str]]:
    """Provider, name and kind of every node."""
    return [
        [group.ep_name, node.name, node.op_type]
        for group in session.get_provider_graph_assignment_info()
        for node in group.get_nodes()
    ]
