"""Recipes by name: what each component of a bundle is stored in.

A name says what it does: ``q4_0`` and the other GGUF names are llama.cpp's own; ``int4_b32`` is 4-bit integers in
blocks of 32 that share a scale; ``fp32``, ``fp16``, ``int8`` are the vision tower's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from edge_mllm.bundle.recipes import RECIPE_LIST, listed_recipe
from edge_mllm.bundle.recipes import Component as Component
from edge_mllm.errors import SettingError


class UnknownRecipeError(SettingError):
    """No recipe of this name for these components; the message lists those there are."""

    def __init__(self, name: str, *components: Component) -> None:
        known = "; ".join(f"{_TITLES[component]}: {', '.join(recipe_names(component))}" for component in components)
        super().__init__(f"unknown recipe '{name}'; known for {known}")


_TITLES = {
    "gguf": "the GGUF decoder",
    "onnx": "the ONNX decoder",
    "prompt": "the ONNX decoder's prompt weights",
    "vision": "the vision tower",
    "mmproj": "mmproj.gguf",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one component is stored."""

    name: str
    component: Component
    bits: float
    """Nominal bits per weight of the weights it quantises; the true figure of a file is measured when it is written."""
    lossless: bool = False
    """Agrees with the float32 checkpoint to float tolerance."""
    builder_precision: str = ""
    """ONNX decoder: onnxruntime-genai's ``--precision``."""
    builder_options: dict[str, str] = field(default_factory=dict)
    """ONNX decoder: onnxruntime-genai's ``--extra_options``."""
    half_scales: bool = False
    """ONNX decoder: store block scales in half precision (as GGUF does), cast back when the file is loaded."""
    embeddings: Literal["float16", "float32"] = "float16"
    """ONNX decoder: type of the embedding table."""
    fixed_scales: bool = False
    """Vision: scales of activations are taken from sample inputs, so there must be some."""
    keep_float: tuple[tuple[str, ...], ...] = ()
    """Vision: groups of patterns of weights that stay float32; each group must find something."""
    gguf_type: str = ""
    """GGUF: llama.cpp's own name of what it starts from, where that is not the recipe's name."""
    head: str | None = None
    """GGUF: type of the output head, and of the embedding table where the two are one tensor."""
    embedding_type: str | None = None
    """GGUF: type of the embedding table."""
    tensors: tuple[tuple[str, str], ...] = ()
    """GGUF: regular expressions on tensor names with their types."""
    overrides: tuple[str, ...] = ()
    """What was changed in the recipe of this name, as the user wrote it."""

    @property
    def block(self) -> int:
        """ONNX decoder: weights that share a scale; 1 where none do."""
        return int(self.builder_options.get(_BLOCK, 1))

    @property
    def base(self) -> str:
        """GGUF: what llama.cpp's quantiser is asked for."""
        return self.gguf_type or self.name

    @property
    def calibrated(self) -> bool:
        """Whether what the layers see can make it better: decoders of few bits."""
        return self.component in DECODERS and self.bits < _ROUNDED_BELOW

    @property
    def sampled(self) -> bool:
        """Whether pictures decide how the tower is quantised."""
        return self.component == "vision" and self.bits < 16


DECODERS: tuple[Component, ...] = ("gguf", "onnx")
_ROUNDED_BELOW = 8.0
"""Bits from which rounding hardly shows."""


_BLOCK = "block_size"


def _int_options(block: int) -> dict[str, str]:
    return {_BLOCK: str(block), "accuracy_level": "4"}


_INT_OPTIONS = _int_options(32)
_MIXED_OPTIONS = {**_INT_OPTIONS, "matmul_mixed_precision": "last_matmul:int8,mixed_layers:int8"}
"""The head in 8 bits and, as llama.cpp's mixtures have it, the projections that lose most in some layers."""


def _recipe(component: Component, name: str, **details: Any) -> Recipe:
    return Recipe(name=name, component=component, bits=listed_recipe(component, name).bits, **details)


RECIPES: tuple[Recipe, ...] = (
    _recipe("gguf", "f32", lossless=True),
    _recipe("gguf", "f16"),
    _recipe("gguf", "q8_0"),
    _recipe("gguf", "q4_0"),
    _recipe("gguf", "iq4_nl"),
    _recipe("gguf", "q4_k_m"),
    _recipe("gguf", "q4_0_head4", gguf_type="q4_0", head="q4_0"),
    _recipe("onnx", "f32", lossless=True, builder_precision="fp32", embeddings="float32"),
    _recipe("onnx", "int8_b32", builder_precision="int8", builder_options=_INT_OPTIONS, half_scales=True),
    _recipe("onnx", "int4_mixed", builder_precision="int4", builder_options=_MIXED_OPTIONS, half_scales=True),
    _recipe("onnx", "int4_b32", builder_precision="int4", builder_options=_INT_OPTIONS, half_scales=True),
    _recipe("onnx", "int4_b64", builder_precision="int4", builder_options=_int_options(64), half_scales=True),
    _recipe("onnx", "int4_b128", builder_precision="int4", builder_options=_int_options(128), half_scales=True),
    _recipe("prompt", "int8"),
    _recipe("vision", "fp32", lossless=True),
    _recipe("vision", "fp16"),
    _recipe("vision", "int8"),
    _recipe("vision", "int8_static", fixed_scales=True),
    _recipe("vision", "int4"),
    _recipe("mmproj", "f32", lossless=True),
    _recipe("mmproj", "f16"),
    _recipe("mmproj", "q8_0"),
)
"""The recipes of :data:`edge_mllm.bundle.recipes.RECIPE_LIST`, with what they ask of the writers."""

DEFAULTS: dict[Component, str] = {entry.component: entry.name for entry in RECIPE_LIST if entry.default}


def recipe_names(component: Component) -> tuple[str, ...]:
    """Names of the recipes of one component, most bits first."""
    return tuple(recipe.name for recipe in RECIPES if recipe.component == component)


def find_recipe(component: Component, name: str | None = None) -> Recipe:
    """Return the recipe of this name, or the component's default.

    Raises:
        UnknownRecipeError: There is none; the message lists the known ones.
    """
    wanted = name or DEFAULTS[component]
    for recipe in RECIPES:
        if recipe.component == component and recipe.name == wanted:
            return recipe
    raise UnknownRecipeError(wanted, component)
