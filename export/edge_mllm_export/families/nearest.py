"""What to say about a checkpoint of an unknown kind: the family it is most like, and what that one cannot read."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_mllm_export.families.family import Family

_PICTURES = ("vision_config", "vision_tower", "mm_vision_tower", "visual", "image_token_id", "image_token_index")
"""Fields that a checkpoint that sees pictures has one of."""
_SECTIONS = ("vision_config", "text_config")
_MOST = 8
"""Fields that are listed; more would hide the message."""


@dataclass(frozen=True)
class Nearest:
    """A family that an unknown checkpoint is like."""

    family: str
    architecture: str
    unknown: tuple[str, ...]
    """What this family's configuration does not know, or knows otherwise, in words."""


def why_not(config: Mapping[str, Any], families: Sequence[Family]) -> str:
    """Why no family reads a config.json, in words: no vision part, or what the nearest family cannot read in it."""
    if not any(config.get(field) is not None for field in _PICTURES):
        return "its config.json has no vision part, so it is a language model alone"
    nearest = nearest_family(config, families)
    lacks = f", which does not know {'; '.join(nearest.unknown)}" if nearest.unknown else ""
    return f"the nearest is {nearest.architecture} ({nearest.family}){lacks}"


def nearest_family(config: Mapping[str, Any], families: Sequence[Family]) -> Nearest:
    """The family whose class name or model type is most like the checkpoint's, and what is missing.

    Args:
        config: config.json.
        families: All that can be exported; at least one.
    """
    wanted = [str(name) for name in config.get("architectures") or ()] + [str(config.get("model_type", ""))]
    ranked = [
        (_likeness(wanted, (architecture, _model_type(architecture))), family.name, architecture)
        for family in families
        if family.model_class is None  # transformers knows no configuration of the others
        for architecture in family.architectures
    ]
    _, name, architecture = max(ranked, key=lambda entry: entry[0])
    return Nearest(name, architecture, tuple(_unknown(config, _model_type(architecture))))


def _likeness(wanted: Sequence[str], known: Sequence[str]) -> float:
    """Best similarity of names, without what all of them share."""
    pairs = [(_core(a), _core(b)) for a in wanted for b in known if a and b]
    return max((difflib.SequenceMatcher(None, a, b).ratio() for a, b in pairs), default=0.0)


def _core(name: str) -> str:
    for common in ("ForConditionalGeneration", "ForCausalLM", "Model"):
        name = name.removesuffix(common)
    return name.replace("_", "").replace("-", "").lower()


def _model_type(architecture: str) -> str:
    """The ``model_type`` that transformers has for a class."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    found = [str(kind) for kind, name in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.items() if name == architecture]
    return max(found, key=lambda kind: _likeness([architecture], [kind]), default="")


def _unknown(config: Mapping[str, Any], model_type: str) -> Iterator[str]:
    from transformers import AutoConfig

    known = AutoConfig.for_model(model_type).to_dict()
    for section in _SECTIONS:
        ours, theirs = config.get(section), known.get(section)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from _other_kind(section, ours, theirs)
    fields = sorted(set(config) - set(known) - {"architectures", "auto_map", "model_type"} - set(_SECTIONS))
    if fields:
        more = f" and {len(fields) - _MOST} more" if len(fields) > _MOST else ""
        yield f"the fields {', '.join(fields[:_MOST])}{more}"
    for section in _SECTIONS:
        if known.get(section) and not isinstance(config.get(section), dict):
            yield f"no {section}"
    if config.get("auto_map"):
        yield "code of its own (auto_map), which is never run"


def _other_kind(section: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """A tower or a language model of another kind than the family's usual one."""
    found, usual = ours.get("model_type"), theirs.get("model_type")
    if found is not None and found != usual:
        yield f"{section}.model_type {json.dumps(found)} (there usually {json.dumps(usual)})"
