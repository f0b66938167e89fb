"""Keep float32 arithmetic but store large constants in half precision.

A Cast beside each constant brings it back; ONNX Runtime folds it when the session is made, so that inference runs on
float32 constants exactly as before. The file is smaller, the price is one rounding to 11 significant bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

HALF_MAX = 65504.0


def store_half(
    model: onnx.ModelProto, *, at_least: int = 1, choose: Callable[[str], bool] | None = None
) -> tuple[str, ...]:
    """Turn float32 initialisers into float16 ones followed by a Cast, in place.

    Args:
        model: Graph whose tensors are in memory.
        at_least: Smallest number of values worth the Cast.
        choose: Which names; all when None.

    Returns:
        Names of the constants that changed. A constant that does not fit the range of half precision is left alone.
    """
    from onnx import TensorProto, helper, numpy_helper

    changed: list[str] = []
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or (choose is not None and not choose(tensor.name)):
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < at_least or float(np.abs(values).max(initial=0.0)) > HALF_MAX:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + "_half"))
        casts.append(helper.make_node("Cast", [name + "_half"], [name], name=name + "_cast", to=TensorProto.FLOAT))
        changed.append(name)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return tuple(changed)
