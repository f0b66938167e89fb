"""Layouts other than transformers' own, as one explicit tuple: how each is recognised, described and rewritten."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm_export.source.layouts.ferret import (
    describe_ferret_original,
    is_ferret_original,
    rewrite_ferret_original,
)
from edge_mllm_export.source.layouts.internvl_chat import (
    describe_internvl_chat,
    is_internvl_chat,
    rewrite_internvl_chat,
)
from edge_mllm_export.source.layouts.llava import describe_llava_original, is_llava_original, rewrite_llava_original

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.tensor_store import TensorInfo
    from edge_mllm_export.source.layouts.native import Documents


@dataclass(frozen=True)
class Layout:
    """One layout. Every function gets the checkpoint's config.json."""

    fits: Callable[[dict[str, Any]], bool]
    """Whether it is of this layout."""
    describe: Callable[[Path, dict[str, Any], Mapping[str, TensorInfo]], Documents]
    """The configuration files that a family reads, from the directory and its tensors, if it holds any."""
    rewrite: Callable[[Path, dict[str, Any], Path], Path]
    """Write the whole checkpoint as a family reads it, into a directory that is returned."""


LAYOUTS = (
    Layout(is_internvl_chat, describe_internvl_chat, rewrite_internvl_chat),
    Layout(is_llava_original, describe_llava_original, rewrite_llava_original),
    Layout(is_ferret_original, describe_ferret_original, rewrite_ferret_original),
)


def layout_of(config: dict[str, Any]) -> Layout | None:
    """The layout of a config.json; None where it is transformers' own."""
    return next((layout for layout in LAYOUTS if layout.fits(config)), None)
