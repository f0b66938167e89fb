"""Rotary positions of a language model: the lengths up to which transformers and both engines compute the same.

The kinds are those of transformers' modeling_rope_utils.py. Two of them change with the length of the prompt: "dynamic"
recomputes its frequencies above ``max_position_embeddings``, "longrope" takes other ones above
``original_max_position_embeddings``, with the keys of earlier tokens left as they were. No engine can do that with a
cache. Up to those lengths both are fixed, so the exported model's context ends there.
"""

from __future__ import annotations

import math
from typing import Any

from edge_mllm_export.errors import CheckpointError

KINDS = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
"""Values of ``rope_type``; "su" is the name that Phi-3 first had for "longrope"."""
FIELD = "text_config.rope_scaling"
OLDER_NAMES = {"su": "longrope", "mrope": "default"}


def by_layer(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rotary parameters of every kind of layer that has its own; of all layers under "" where there is one kind.

    Args:
        config: A language model's configuration as transformers writes it, with ``rope_parameters``.

    Raises:
        CheckpointError: A kind is not known.
    """
    given = config.get("rope_parameters") or {}
    nested = {name: value for name, value in given.items() if isinstance(value, dict)}
    found = {name: dict(value) for name, value in (nested or {"": given}).items()}
    for name, parameters in found.items():
        kind = parameters.get("rope_type") or parameters.get("type") or "default"
        parameters["rope_type"] = OLDER_NAMES.get(kind, kind)
        if parameters["rope_type"] not in KINDS:
            field = ".".join(part for part in (FIELD, name, "rope_type") if part)
            raise CheckpointError("config.json", field, f"is {kind!r}, known: {', '.join(KINDS)}")
    return found


def trained_length(config: dict[str, Any]) -> int:
    """Positions up to which the model's frequencies do not change: its context on a device.

    Args:
        config: As for :func:`by_layer`.

    Raises:
        CheckpointError: A kind is not known.
    """
    longest = int(config["max_position_embeddings"])
    for parameters in by_layer(config).values():
        if parameters["rope_type"] == "longrope":
            longest = min(longest, original_length(config, parameters))
    return longest


def within_trained_length(config: dict[str, Any]) -> dict[str, Any]:
    """The same configuration for prompts of no more than :func:`trained_length` positions.

    "dynamic" is "default" there, and "longrope" keeps its short factors and the factor of its attention, which comes
    from the length that is given up.

    Raises:
        CheckpointError: A kind is not known, or a number is missing.
    """
    kinds = by_layer(config)
    length = trained_length(config)
    if all(parameters["rope_type"] not in ("dynamic", "longrope") for parameters in kinds.values()):
        return config
    fixed = {name: _fixed(config, parameters) for name, parameters in kinds.items()}
    rotary = fixed.get("", fixed)
    found = config | {"max_position_embeddings": length, "rope_parameters": rotary}
    return (
        found | {"original_max_position_embeddings": length} if "original_max_position_embeddings" in found else found
    )


def _fixed(config: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    kind = parameters["rope_type"]
    kept = {key: value for key, value in parameters.items() if key != "type"}
    if kind == "dynamic":
        return {key: value for key, value in kept.items() if key != "factor"} | {"rope_type": "default"}
    if kind != "longrope":
        return kept
    for name in ("short_factor", "long_factor"):
        factors = parameters.get(name)
        if not isinstance(factors, list) or not all(isinstance(factor, int | float) for factor in factors):
            raise CheckpointError("config.json", f"{FIELD}.{name}", f"is {factors!r}, expected a list of numbers")
    return kept | {"attention_factor": attention_factor(config, parameters)}


def attention_factor(config: dict[str, Any], parameters: dict[str, Any]) -> float:
    """What cosines and sines are multiplied with, as transformers' modeling_rope_utils.py computes it.

    Args:
        config: As for :func:`by_layer`.
        parameters: One of its results.
    """
    given, kind = parameters.get("attention_factor"), parameters["rope_type"]
    if kind not in ("yarn", "longrope"):
        return 1.0
    if given is not None:
        return float(given)
    factor = scaling_factor(config, parameters)
    if kind == "longrope":
        return 1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(original_length(config, parameters)))
    scales = [parameters.get(name) for name in ("mscale", "mscale_all_dim")]
    if all(scales):
        return _yarn_scale(factor, scales[0]) / _yarn_scale(factor, scales[1])
    return _yarn_scale(factor, 1.0)


def _yarn_scale(factor: float, weight: Any) -> float:
    return 1.0 if factor <= 1 else 0.1 * float(weight) * math.log(factor) + 1.0


def scaling_factor(config: dict[str, Any], parameters: dict[str, Any]) -> float:
    """``factor``, or how much longer the context is than the one in training."""
    return float(parameters.get("factor") or config["max_position_embeddings"] / original_length(config, parameters))


def original_length(config: dict[str, Any], parameters: dict[str, Any]) -> int:
    """Positions in training, before frequencies were scaled; the model's own field wins, as in transformers."""
    found = config.get("original_max_position_embeddings") or parameters.get("original_max_position_embeddings")
    return int(found or config["max_position_embeddings"])
