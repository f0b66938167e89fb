"""The families this release exports, as one explicit tuple."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import CheckpointError, UnsupportedArchitectureError
from edge_mllm_export.families.bluelm_v import family as bluelm_v
from edge_mllm_export.families.ferret_ui import family as ferret_ui
from edge_mllm_export.families.gemma3 import family as gemma3
from edge_mllm_export.families.idefics3 import family as idefics3
from edge_mllm_export.families.internvl import family as internvl
from edge_mllm_export.families.llava import llava, llava_next, llava_onevision, llava_phi
from edge_mllm_export.families.minicpm_v import family as minicpm_v
from edge_mllm_export.families.minicpm_v import v4_6 as minicpm_v_4_6
from edge_mllm_export.families.minicpm_v import v4_7 as minicpm_v_4_7
from edge_mllm_export.families.qwen_vl import qwen2_5_vl, qwen2_vl, qwen3_5, qwen3_vl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_mllm_export.checkpoint.checkpoint import Checkpoint
    from edge_mllm_export.families.family import Family

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
    qwen3_vl.FAMILY,
    qwen3_5.FAMILY,
    gemma3.FAMILY,
    minicpm_v.FAMILY,
    minicpm_v_4_6.FAMILY,
    minicpm_v_4_7.FAMILY,
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


def _check_named(config: Mapping[str, Any]) -> None:
    """Say what to do about a config.json without its class's name, which some programs leave out when they save."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as CLASSES

    named = config.get("architectures")
    if named is not None and not isinstance(named, list):
        raise CheckpointError("config.json", "architectures", f"is {named!r}, expected a list of class names")
    model_type = str(config.get("model_type"))
    usual = CLASSES.get(model_type)
    if not named and usual in supported_architectures():
        reason = (
            "is missing or empty, so that the model's class is not known; add it as the published model has it; "
            f"model_type '{model_type}' usually has [\"{usual}\"]"
        )
        raise CheckpointError("config.json", "architectures", reason)


def _check_kind(config: Mapping[str, Any], family: Family) -> None:
    """Refuse a ``model_type`` of another kind: transformers would make a configuration with other fields of it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as CLASSES

    kinds = [str(kind) for kind, name in CLASSES.items() if name in family.architectures]
    if kinds and config.get("model_type") not in kinds:
        named = next(name for name in config["architectures"] if name in family.architectures)
        reason = f"is {config.get('model_type')!r}, but {named} has {' or '.join(map(repr, kinds))}"
        raise CheckpointError("config.json", "model_type", reason)


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family that reads a config.json.

    Raises:
        UnsupportedArchitectureError: No family reads it; the message names the nearest one and what is missing.
        CheckpointError: It names no class, and a family reads what its model_type usually has.
    """
    from edge_mllm_export.families.nearest import why_not

    _check_named(config)
    found = [str(name) for name in config.get("architectures") or []]
    for family in FAMILIES:
        if any(name in family.architectures for name in found):
            _check_kind(config, family)
            return family
    wanted = found[0] if found else str(config.get("model_type", "unknown"))
    raise UnsupportedArchitectureError(wanted, supported_architectures(), why_not(config, FAMILIES))
