"""Write the two one-node graphs that ``edge_mllm.machine.peaks`` times.

The right-hand matrix comes from ConstantOfShape, which ONNX Runtime folds when it opens the graph: so the files stay
below a kilobyte and the matrix is packed in advance, as weights are.

    python benchmarks/make_kernels.py [DIRECTORY]
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper

SIZE = 1024
TARGET = Path(__file__).resolve().parent.parent / "edge_mllm" / "machine" / "kernels"


def make_kernel(operator: str, left: int, right: int, out: int) -> onnx.ModelProto:
    """One matrix product [SIZE, SIZE] x [SIZE, SIZE] of the given tensor types."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [SIZE, SIZE])
    value = helper.make_tensor("value", right, [1], [1])
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["weights"], value=value),
        helper.make_node(operator, ["left", "weights"], ["product"]),
    ]
    graph = helper.make_graph(
        nodes,
        operator.lower(),
        [helper.make_tensor_value_info("left", left, [SIZE, SIZE])],
        [helper.make_tensor_value_info("product", out, [SIZE, SIZE])],
        [shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="")
    onnx.checker.check_model(model)
    return model


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    float32 = make_kernel("MatMul", TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.FLOAT)
    int8 = make_kernel("MatMulInteger", TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32)
    for name, model in (("matmul_float32", float32), ("matmul_int8", int8)):
        (directory / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
