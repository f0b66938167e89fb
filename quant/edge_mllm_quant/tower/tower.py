"""The vision tower's recipes on its float graph: what is quantised, what stays, and what the pictures decide.

``int8``: products in integers, those of long attentions included, the projector in half precision. The projector alone
made more than half of an int8 tower's error where it was measured, and holds a few per cent of its weights. With sample
inputs, queries, keys and values are evened out, and outlier channels migrate into the weights where that lowers the
error of the embeddings on these samples.

``int8_static``: the same products with weights, with scales that are fixed after the samples; attention in float.

``int4``: weights in blocks of 4 bits chosen with what the products are fed, the projector in blocks of 8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray
from edge_mllm.errors import SettingError
from edge_mllm.machine.ort import levels_here, session_options
from edge_mllm_quant.graph.files import save_graph
from edge_mllm_quant.recipes.override import PROJECTOR_PATTERNS
from edge_mllm_quant.tower.half_storage import store_half
from edge_mllm_quant.tower.head_balance import balance_heads
from edge_mllm_quant.tower.int4 import quantise_weights
from edge_mllm_quant.tower.int8 import find_products, quantise_dynamic
from edge_mllm_quant.tower.integer_attention import LEAST_TOKENS, use_integer_attention
from edge_mllm_quant.tower.migration import Where, migrate_outliers
from edge_mllm_quant.tower.static import quantise_static
from edge_mllm_quant.tower.watching import Feeds, Seen, watch_inputs

if TYPE_CHECKING:
    import onnx

    from edge_mllm_quant.recipes.recipe import Recipe

HALF_FROM = 1024
"""Initialisers with fewer values stay float32: biases and norms weigh nothing."""
PRODUCTS_BELOW = 9000
"""Input channels from which the matrix of second moments takes more memory than it is worth."""
_SHARES: dict[Where, float] = {"none": 1.0, "norms": 0.97, "all": 0.8}
"""Channels migrate into layer norms, or everywhere at the cost of a multiplication, where that lowers the error to this
share or less."""


@dataclass(frozen=True)
class Quantised:
    """A tower and what was decided about it."""

    model: onnx.ModelProto
    report: dict[str, Any]
    """For the ``recipe`` section of bundle.json."""


def quantise_tower(
    model: onnx.ModelProto, recipe: Recipe, samples: Sequence[Feeds] = (), *, integer_from: int = LEAST_TOKENS
) -> Quantised:
    """Store a tower as a recipe says.

    Args:
        model: float32 graph with its tensors in memory; it must not be used afterwards.
        recipe: One of the vision recipes.
        samples: Inputs of the tower to decide with; none: the nearest codes, no migration.
        integer_from: Tokens from which int8 computes attention in integers too.

    Raises:
        OverrideError: A pattern of ``recipe.keep_float`` finds nothing.
    """
    if recipe.name == "fp16":
        store_half(model, at_least=HALF_FROM)
    elif recipe.name == "int8":
        return _int8(model, recipe, samples, integer_from)
    elif recipe.fixed_scales:
        return _int8_static(model, recipe, samples)
    elif recipe.name == "int4":
        return _int4(model, recipe, samples)
    return Quantised(model, {})


def _int4(model: onnx.ModelProto, recipe: Recipe, samples: Sequence[Feeds]) -> Quantised:
    kept = [name for patterns in recipe.keep_float for name in find_products(model, patterns)]
    projector = [name for name in _projector(model) if name not in kept]
    seen = watch_inputs(model, samples, products_below=PRODUCTS_BELOW) if samples else {}
    model = quantise_weights(model, seen, keep=[*kept, *projector])
    others = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.name not in projector]
    model = quantise_weights(model, {}, keep=others, bits=8)
    float_weights = {node.input[1] for node in model.graph.node if node.name in kept}
    store_half(model, at_least=HALF_FROM, choose=lambda name: name not in float_weights)
    return Quantised(model, {"samples": len(samples)} if samples else {})


def _int8(model: onnx.ModelProto, recipe: Recipe, samples: Sequence[Feeds], integer_from: int) -> Quantised:
    def quantise(model: onnx.ModelProto) -> onnx.ModelProto:
        model = _integers(model, recipe)
        use_integer_attention(model, least_tokens=integer_from)
        return model

    return migrated(model, samples, quantise) if samples else Quantised(quantise(model), {})


def _int8_static(model: onnx.ModelProto, recipe: Recipe, samples: Sequence[Feeds]) -> Quantised:
    if not samples:
        raise SettingError("the recipe int8_static takes its scales from pictures; leave `calibration=False` out")
    return migrated(model, samples, lambda candidate: _fixed(candidate, recipe, samples))


def migrated(
    model: onnx.ModelProto,
    samples: Sequence[Feeds],
    quantise: Callable[[onnx.ModelProto], onnx.ModelProto],
    *,
    ways: Sequence[Where] = ("none", "norms", "all"),
) -> Quantised:
    """The tower quantised after the migration that serves it best.

    Args:
        model: float32 graph with its tensors in memory.
        samples: Inputs that errors are measured on.
        quantise: Changes the graph that it is given, or gives another one.
        ways: Of migrating that are tried, the one that costs least first.
    """
    exact = run_graph(model, samples)
    balanced = balance_heads(model, samples)
    seen = watch_inputs(model, samples)
    errors: dict[str, float] = {}
    chosen, best = ways[0], None
    for name in ways:
        candidate = _copy(model)
        migrate_outliers(candidate, _peaks(seen), where=name)
        candidate = quantise(candidate)
        errors[name] = relative_error(exact, run_graph(candidate, samples))
        if best is None or errors[name] < _SHARES[name] * errors[chosen]:
            chosen, best = name, candidate
    return Quantised(best, {"samples": len(samples), "balanced": balanced, "migration": chosen, "errors": errors})


def _integers(model: onnx.ModelProto, recipe: Recipe) -> onnx.ModelProto:
    """Integer products but for the projector, which is stored in half precision unless the recipe keeps it float."""
    asked, half = _float_products(model, recipe)
    weights = {node.input[1] for node in model.graph.node if node.name in half}
    model = quantise_dynamic(model, keep=[*asked, *half])
    store_half(model, choose=lambda name: name in weights)
    return model


def _fixed(model: onnx.ModelProto, recipe: Recipe, samples: Sequence[Feeds]) -> onnx.ModelProto:
    """Integer products with fixed scales; projector as in :func:`_integers`."""
    asked, half = _float_products(model, recipe)
    weights = {node.input[1] for node in model.graph.node if node.name in half}
    quantise_static(model, watch_inputs(model, samples), keep=[*asked, *half])
    store_half(model, choose=lambda name: name in weights)
    return model


def _float_products(model: onnx.ModelProto, recipe: Recipe) -> tuple[set[str], list[str]]:
    """Products that the recipe keeps float, and the projector's others."""
    asked = {name for patterns in recipe.keep_float for name in find_products(model, patterns)}
    return asked, [name for name in _projector(model) if name not in asked]


def _projector(model: onnx.ModelProto) -> list[str]:
    """Products between tower and language model; none where nothing is called so."""
    return find_products(model, PROJECTOR_PATTERNS, needed=False)


def _peaks(seen: dict[str, Seen]) -> dict[str, FloatArray]:
    return {name: entry.peaks for name, entry in seen.items()}


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def run_graph(model: onnx.ModelProto, samples: Sequence[Feeds]) -> list[npt.NDArray[np.float32]]:
    """The first output for each of the samples, with the runtime's own options: what is measured is what runs."""
    import onnxruntime as ort

    with TemporaryDirectory() as scratch:
        save_graph(model, Path(scratch) / "tower.onnx")
        session = ort.InferenceSession(
            str(Path(scratch) / "tower.onnx"), session_options(None), ["CPUExecutionProvider"]
        )
        levels = levels_here(session)
        return [session.run(None, {**feeds, **levels})[0] for feeds in samples]


def relative_error(exact: Sequence[FloatArray], ours: Sequence[FloatArray]) -> float:
    """Norm of the difference over the norm of the exact values, mean over samples."""
    shares = [np.linalg.norm(a - b) / max(float(np.linalg.norm(a)), 1e-30) for a, b in zip(exact, ours, strict=True)]
    return float(np.mean(shares))
