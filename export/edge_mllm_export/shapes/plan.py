"""What a checkpoint of random weights consists of, read from the data file of its shape."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mllm_export.errors import SourceError
from edge_mllm_export.shapes.tokenizer import TokenizerPlan

PREFIX = "shape:"
FOLDER = Path(__file__).parent
"""Of the data files."""
SHAPES = (
    "smolvlm-256m",
    "smolvlm-500m",
    "smolvlm-2.2b",
    "internvl3-1b",
    "llava-interleave-0.5b",
    "llava-onevision-0.5b",
    "bluelm-v-3b",
    "ferret-ui-gemma2b",
    "qwen2-vl-2b",
    "qwen2.5-vl-3b",
    "qwen3-vl-2b",
    "qwen3.5-0.8b",
    "gemma3-4b",
    "minicpm-v-4",
    "minicpm-v-4.6",
    "minicpm-v-4.7-1b",
)
"""Names that may follow ``shape:``; each has a data file."""


@dataclass(frozen=True, kw_only=True)
class ShapePlan:
    """The files of a published model, apart from its weights and its merges."""

    description: str
    """Tower, language model, and number of parameters where the hub states it."""
    source: str
    """The published files that the fields come from."""
    config: dict[str, Any]
    """config.json; every field that the published file leaves to the class's defaults may be left out here too."""
    generation: dict[str, Any]
    """generation_config.json."""
    preprocessor: dict[str, Any]
    """preprocessor_config.json."""
    processor: dict[str, Any]
    """processor_config.json."""
    chat_template: str
    """Renders to what the published template renders to, for text and pictures."""
    tokenizer_config: dict[str, Any]
    """tokenizer_config.json, without ``added_tokens_decoder``."""
    tokenizer: TokenizerPlan


def load_shape(name: str) -> ShapePlan:
    """Read the data file of a shape.

    Args:
        name: One of :data:`SHAPES`.

    Raises:
        SourceError: There is no such shape.
    """
    if name not in SHAPES:
        raise SourceError(PREFIX + name, f"no such shape; there are: {', '.join(PREFIX + known for known in SHAPES)}")
    fields = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    tokenizer = fields.pop("tokenizer")
    special = {int(number): text for number, text in tokenizer.pop("special").items()}
    added = tuple(tokenizer.pop("added"))
    return ShapePlan(**fields, tokenizer=TokenizerPlan(**tokenizer, special=special, added=added))
