"""The names of the recipes that an export can store each part in, for listings; the export side knows what they do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Component = Literal["gguf", "onnx", "prompt", "vision", "vision_openvino", "mmproj"]


@dataclass(frozen=True)
class ListedRecipe:
    """One recipe."""

    component: Component
    name: str
    bits: float
    """Nominal bits per weight of the weights it quantises; a file's true figure is in its bundle."""
    about: str
    default: bool = False


RECIPE_LIST: tuple[ListedRecipe, ...] = (
    ListedRecipe("gguf", "f32", 32, "32-bit floats"),
    ListedRecipe("gguf", "f16", 16, "16-bit floats"),
    ListedRecipe("gguf", "q8_0", 8.5, "8-bit integers in blocks of 32"),
    ListedRecipe("gguf", "q4_0", 4.5, "4-bit integers in blocks of 32, head and embeddings 6 or 8 bits; fastest", True),
    ListedRecipe("gguf", "iq4_nl", 4.5, "4-bit codes of uneven steps in blocks of 32, head as above"),
    ListedRecipe("gguf", "q4_k_m", 4.8, "4-bit integers in blocks of 32 within 256, some layers and the head 6 bits"),
    ListedRecipe("gguf", "q4_0_head4", 4.5, "as q4_0, head (and a table tied to it) 4 bits too; smallest"),
    ListedRecipe("onnx", "f32", 32, "32-bit floats"),
    ListedRecipe("onnx", "int8_b32", 8.5, "8-bit integers in blocks of 32, head included"),
    ListedRecipe("onnx", "int4_mixed", 5.5, "as int4_b32, head and the parts that lose most 8 bits"),
    ListedRecipe("onnx", "int4_b32", 4.5, "4-bit integers in blocks of 32, head included; 16-bit embeddings", True),
    ListedRecipe("onnx", "int4_b64", 4.25, "as int4_b32 in blocks of 64: faster, loses more"),
    ListedRecipe("onnx", "int4_b128", 4.125, "as int4_b32 in blocks of 128: for rows that 128 divides"),
    ListedRecipe("prompt", "int8", 8, "beside an ONNX decoder, for prompts: 8-bit weights, activations by token"),
    ListedRecipe("vision", "fp32", 32, "32-bit floats"),
    ListedRecipe("vision", "fp16", 16, "weights stored in 16 bits, computed in 32"),
    ListedRecipe("vision", "int8", 8, "8-bit weights, activations measured per call; projector 16 bits", True),
    ListedRecipe("vision", "int8_static", 8, "as int8 with scales fixed after pictures: for OpenVINO and NPUs"),
    ListedRecipe("vision", "int4", 4.5, "4-bit weights in blocks of 32, projector 8 bits; smallest, slower than int8"),
    ListedRecipe("mmproj", "f32", 32, "32-bit floats"),
    ListedRecipe("mmproj", "f16", 16, "16-bit floats", True),
    ListedRecipe("mmproj", "q8_0", 8.5, "8-bit integers in blocks of 32"),
)
"""Every recipe, by component, most bits first."""


PUBLISHED_SIZES = ("135M", "360M", "494M")
"""Weights of the published decoders that :data:`TRUE_BITS` is about, which have towers of their own."""
TRUE_BITS: dict[tuple[Component, str], tuple[float, float, float]] = {
    ("gguf", "f32"): (32.0, 32.0, 32.0),
    ("gguf", "f16"): (16.0, 16.0, 16.0),
    ("gguf", "q8_0"): (8.51, 8.5, 8.5),
    ("gguf", "q4_0"): (5.2, 4.97, 5.37),
    ("gguf", "iq4_nl"): (5.2, 4.97, 5.37),
    ("gguf", "q4_k_m"): (6.05, 5.89, 6.16),
    ("gguf", "q4_0_head4"): (4.51, 4.5, 4.5),
    ("onnx", "f32"): (32.1, 32.04, 32.11),
    ("onnx", "int8_b32"): (9.91, 9.41, 10.23),
    ("onnx", "int4_mixed"): (7.8, 6.96, 8.37),
    ("onnx", "int4_b32"): (6.61, 5.87, 7.09),
    ("onnx", "int4_b64"): (6.41, 5.65, 6.9),
    ("onnx", "int4_b128"): (6.61, 5.73, 6.8),
    ("vision", "fp32"): (32.0, 32.0, 32.0),
    ("vision", "fp16"): (16.01, 16.01, 16.0),
    ("vision", "int8"): (9.03, 9.36, 8.95),
    ("vision", "int8_static"): (9.02, 9.36, 8.95),
    ("vision", "int4"): (5.0, 5.17, 4.96),
}
"""All bytes of a part by its weights, for each of :data:`PUBLISHED_SIZES`; tables and all else included."""


def listed_recipe(component: Component, name: str) -> ListedRecipe:
    """The entry of this name.

    Raises:
        KeyError: There is none.
    """
    for entry in RECIPE_LIST:
        if (entry.component, entry.name) == (component, name):
            return entry
    raise KeyError(f"{component} {name}")
