"""Integer matrix products for a float32 graph: weights per output channel, activations measured at every call.

ONNX Runtime's dynamic quantisation (``onnxruntime.quantization.quantize_dynamic``) does the work.
"""

from __future__ import annotations

import logging
from ast import literal_eval
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edge_mllm_quant.graph.files import PROTOBUF_LIMIT, save_graph, tensor_bytes
from edge_mllm_quant.recipes.override import OverrideError, matches

if TYPE_CHECKING:
    import onnx


def quantise_dynamic(model: onnx.ModelProto, *, keep: Sequence[str] = ()) -> onnx.ModelProto:
    """Return the graph with its MatMul weights as int8.

    Args:
        model: float32 graph with its tensors in memory; changed in place.
        keep: Names of nodes that stay float32.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with TemporaryDirectory() as scratch, quiet_quantiser():
        out = Path(scratch) / "int8.onnx"
        large = tensor_bytes(model) >= PROTOBUF_LIMIT  # then it is copied by file: in memory protobuf cannot
        quantize_dynamic(
            save_graph(model, Path(scratch) / "float.onnx")[0] if large else model,
            out,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*keep],
            use_external_data_format=large,
        )
        return onnx.load_model(out)


def find_products(model: onnx.ModelProto, patterns: tuple[str, ...], *, needed: bool = True) -> list[str]:
    """Names of the MatMul nodes whose weight or module fits one of the patterns (fnmatch).

    Args:
        model: As torch's exporter wrote it.
        patterns: On names of weights and of torch modules.
        needed: Whether finding nothing is an error.

    Raises:
        OverrideError: Nothing fits, and it is needed.
    """
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    found = [node.name for node in products if any(matches(name, patterns) for name in (*node.input, *_modules(node)))]
    if needed and not found:
        known = sorted({name for node in products for name in _modules(node)[-1:]})
        raise OverrideError(f"{patterns[0]}=fp32", f"nothing in the tower has this name; there are {', '.join(known)}")
    return found


@contextmanager
def quiet_quantiser() -> Iterator[None]:
    """ONNX Runtime's quantiser tells the root logger about every tensor, and advises on graphs of other exporters."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        root.setLevel(level)


def _modules(node: onnx.NodeProto) -> tuple[str, ...]:
    """Names of the torch modules that a node comes from, outermost first, as torch's exporter notes them."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            return tuple(name for name in literal_eval(entry.value)[:-1] if name)
    return ()
