"""Exceptions from a recipe: ``head=q4_0``, ``embeddings=float32``, ``projector=fp32``, ``blk.*.ffn_down=q8_0``.

The left side is a component's name or a pattern with ``*`` and ``?`` on tensor names (GGUF's for the decoder, module
names for the vision tower). The type on the right side says which part it is for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Literal, cast

from edge_mllm.errors import SettingError

if TYPE_CHECKING:
    from edge_mllm_quant.recipes.recipe import Component, Recipe

GGUF_TYPES = ("f32", "f16", "bf16", "q8_0", "q6_k", "q5_0", "q5_1", "q5_k", "q4_0", "q4_1", "q4_k", "iq4_nl", "iq4_xs")
"""Types of single tensors in decoder.gguf."""
VISION_FLOAT = "fp32"
"""Weights of the int8 tower that stay as they are."""
TABLE_TYPES = ("float16", "float32")
"""Types of the ONNX decoder's embedding table."""
NBITS_TYPES = ("int4", "int8")
"""Types of the ONNX decoder's output head."""
_MIXED, _LAST = "matmul_mixed_precision", "last_matmul"
"""onnxruntime-genai's option for exceptions, and its name of the head."""
HEAD, EMBEDDINGS, PROJECTOR = "head", "embeddings", "projector"
_END = "(\\.weight)?$"
PROJECTOR_PATTERNS = ("*projector*", "*projection*", "*connector*", "*merger*", "*mlp1*")
"""How modules between a tower and a language model are called."""


class OverrideError(SettingError):
    """An override that says nothing, or that no part can follow."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"cannot follow the override '{text}': {reason}")


@dataclass(frozen=True)
class Override:
    """One exception."""

    target: str
    """``head``, ``embeddings``, ``projector`` or a pattern."""
    type: str

    def __str__(self) -> str:
        return f"{self.target}={self.type}"


def parse_override(text: str) -> Override:
    """Read ``TARGET=TYPE``.

    Raises:
        OverrideError: It has another form, or there is no such type.
    """
    target, found, kind = (part.strip() for part in text.partition("="))
    if not (target and found and kind):
        raise OverrideError(text, "write TARGET=TYPE, for example head=q4_0 or 'blk.*.ffn_down=q8_0'")
    known = (*GGUF_TYPES, VISION_FLOAT, *TABLE_TYPES, *NBITS_TYPES)
    if kind not in known:
        raise OverrideError(text, f"there is no type '{kind}'; known: {', '.join(known)}")
    return Override(target, kind)


def apply_overrides(recipes: Mapping[Component, Recipe], overrides: Sequence[Override]) -> dict[Component, Recipe]:
    """The recipes with their exceptions.

    Raises:
        OverrideError: No chosen part can follow one of them.
    """
    changed = dict(recipes)
    for override in overrides:
        component = _component(override)
        recipe = changed.get(component)
        if recipe is None:
            raise OverrideError(str(override), f"the type is for {component}, which is not written")
        changed[component] = _changed(recipe, override)
    return changed


def _component(override: Override) -> Component:
    if override.type in GGUF_TYPES:
        return "gguf"
    return "vision" if override.type == VISION_FLOAT else "onnx"


def _changed(recipe: Recipe, override: Override) -> Recipe:
    noted = replace(recipe, overrides=(*recipe.overrides, str(override)))
    if recipe.component == "onnx" and override.target == EMBEDDINGS and override.type in TABLE_TYPES:
        return replace(noted, embeddings=cast(Literal["float16", "float32"], override.type))
    if recipe.component == "onnx" and not (override.target == HEAD and override.type in NBITS_TYPES):
        known = f"embeddings={' or '.join(TABLE_TYPES)} and head={' or '.join(NBITS_TYPES)}"
        raise OverrideError(str(override), f"the ONNX decoder knows {known}")
    if recipe.bits >= 16:
        raise OverrideError(str(override), f"{recipe.name} keeps everything in floats; choose a smaller recipe")
    if recipe.component == "onnx":
        return replace(noted, builder_options=_with_head(recipe.builder_options, override.type))
    if recipe.component == "vision":
        patterns = PROJECTOR_PATTERNS if override.target == PROJECTOR else (override.target,)
        return replace(noted, keep_float=(*recipe.keep_float, patterns))
    if override.target == HEAD:
        return replace(noted, head=override.type)
    if override.target == EMBEDDINGS:
        return replace(noted, embedding_type=override.type)
    return replace(noted, tensors=(*recipe.tensors, (tensor_expression(override.target), override.type)))


def _with_head(options: Mapping[str, str], kind: str) -> dict[str, str]:
    placed = dict(entry.split(":") for entry in options.get(_MIXED, "").split(",") if entry) | {_LAST: kind}
    return {**options, _MIXED: ",".join(f"{group}:{name}" for group, name in placed.items())}


def tensor_expression(pattern: str) -> str:
    """A pattern as the regular expression that llama.cpp searches tensor names with; ``.weight`` may be left out."""
    parts = (re.escape(char) if char not in "*?" else {"*": ".*", "?": "."}[char] for char in pattern)
    return f"^{''.join(parts)}{_END}"


def pattern_of(expression: str) -> str:
    """The pattern that :func:`tensor_expression` turned into this expression, for messages."""
    kept = expression.removeprefix("^").removesuffix(_END)
    return re.sub(r"\\(.)|\.\*|\.", lambda found: found[1] or {".*": "*", ".": "?"}[found[0]], kept)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a module or weight name fits one of the patterns."""
    return any(fnmatch(name, pattern) for pattern in patterns)
