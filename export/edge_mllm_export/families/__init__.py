"""The families this release exports, as one explicit tuple."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import UnsupportedArchitectureError
from edge_mllm_export.families import (
    bluelm_v,
    ferret_ui,
    gemma3,
    idefics3,
    internvl,
    llava,
    llava_next,
    llava_onevision,
    llava_phi,
    qwen2_5_vl,
    qwen2_vl,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_mllm_export.checkpoint import Checkpoint
    from edge_mllm_export.family import Family

FAMILIES: tuple[Family, ...] = (
    idefics3.FAMILY,
    internvl.FAMILY,
    llava.FAMILY,
    llava_phi.FAMILY,
    llava_next.FAMILY,
    llava_onevision.FAMILY,
    bluelm_v.FAMILY,
    ferret_ui.FAMILY,
    qwen2_vl.FAMILY,
    qwen2_5_vl.FAMILY,
    gemma3.FAMILY,
)


def supported_architectures() -> tuple[str, ...]:
    """Class names that can stand in config.json's ``architectures``, sorted."""
    return tuple(sorted(name for family in FAMILIES for name in family.architectures))


def own_model_class(config: Mapping[str, Any]) -> Any | None:
    """The class that a config.json's family brings because transformers has none, or None."""
    found = set(config.get("architectures") or ())
    for family in FAMILIES:
        if family.model_class is not None and found & set(family.architectures):
            return family.model_class()
    return None


def find_family(checkpoint: Checkpoint) -> Family:
    """Return the family that reads this checkpoint; errors as :func:`family_of`."""
    return family_of(checkpoint.config)


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family that reads a config.json.

    Raises:
        UnsupportedArchitectureError: No family reads it; the message names the nearest one and what is missing.
    """
    from edge_mllm_export.nearest_family import why_not

    found = [str(name) for name in config.get("architectures") or []]
    for family in FAMILIES:
        if any(name in family.architectures for name in found):
            return family
    wanted = found[0] if found else str(config.get("model_type", "unknown"))
    raise UnsupportedArchitectureError(wanted, supported_architectures(), why_not(config, FAMILIES))
