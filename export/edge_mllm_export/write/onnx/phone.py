"""What a decoder's graph asks for that the ONNX Runtime of phones does not have.

phone_operators.json holds the operators of that version's own domain with their inputs and attributes, as the library
itself lists them (``android_demo/tools/phone_operators.py``).
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from edge_mllm_quant.graph.walk import with_branches

if TYPE_CHECKING:
    import onnx

_OWN_DOMAIN = "com.microsoft"
_ATTENTION, _PAST = "GroupQueryAttention", "past_key_values."
_INT8 = 3
"""TensorProto.INT8."""


def phone_gaps(model: onnx.ModelProto) -> tuple[str, ...]:
    """One line for each kind of thing that is missing; nothing where the graph runs on a phone."""
    known = _known()
    gaps: dict[str, None] = {}
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > known["opset"]:
            gaps[f"opset {opset.version}"] = None
    for node in with_branches(model.graph.node):
        if node.domain != _OWN_DOMAIN:
            continue
        operator = known["operators"].get(node.op_type)
        if operator is None:
            gaps[f"the operator {node.op_type}"] = None
            continue
        inputs = len([name for name in node.input if name])
        if inputs and max(place for place, name in enumerate(node.input) if name) >= operator["inputs"]:
            gaps[f"inputs of {node.op_type}"] = None
        for attribute in node.attribute:
            if attribute.name not in operator["attributes"]:
                gaps[f"{node.op_type} with {attribute.name}"] = None
    if any(value.name.startswith(_PAST) and value.type.tensor_type.elem_type == _INT8 for value in model.graph.input):
        gaps[f"{_ATTENTION} over keys and values of 8 bits"] = None
    return tuple(gaps)


@cache
def _known() -> dict[str, Any]:
    text = files("edge_mllm_export.write.onnx").joinpath("phone_operators.json").read_text("utf-8")
    known: dict[str, Any] = json.loads(text)
    return known
