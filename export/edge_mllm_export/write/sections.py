"""A checkpoint's own configuration as the sections of bundle.json, checked before anything is written."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from edge_mllm.bundle.numbers import check_numbers
from edge_mllm.bundle.spec import SCHEMA_VERSION, BundleSpec, Part, Source
from edge_mllm.errors import BundleError, EdgeMLLMError
from edge_mllm.picture.tile_checks import check_tiles
from edge_mllm_export.errors import CheckpointError

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint
    from edge_mllm_export.families.family import Family


def check_sections(checkpoint: Checkpoint, family: Family) -> None:
    """Read image, vision, prompt and decoder as the export will, and refuse what the runtime would refuse.

    Raises:
        CheckpointError: A field is missing, contradicts another one, or makes no sense, or the chat template has no way
            to show a question about a picture.
    """
    read = {}
    for name in ("image", "vision", "prompt", "decoder"):
        try:
            read[name] = getattr(family, name)(checkpoint)
        except EdgeMLLMError:
            raise
        except Exception as error:  # whatever a wrong value makes of arithmetic
            reason = f"cannot be read for this kind of model ({type(error).__name__}: {_line(error)})"
            raise CheckpointError(checkpoint.path, name, reason) from error
    spec = BundleSpec(
        schema_version=SCHEMA_VERSION,
        name=checkpoint.id,
        source=Source(id=checkpoint.id, revision=None, sha256="", licence="", family=family.name),
        parts={"newline": Part(file="", sha256="", bytes=0, precision="")},  # written where the tiler needs it
        recipe={},
        verification={},
        created="",
        exporter={},
        **read,
    )
    try:
        check_numbers(checkpoint.path, spec, where="its configuration")
        check_tiles(checkpoint.path, spec, where="its configuration")
    except BundleError as error:
        raise CheckpointError(checkpoint.path, "", error.reason) from error
    _check_finite(checkpoint, spec)
    family.content_kind(checkpoint)


def _check_finite(checkpoint: Checkpoint, spec: BundleSpec) -> None:
    """Factors of the picture's values within what any processor uses."""
    image = dataclasses.asdict(spec.image)
    for name, values in {"rescale": (image["rescale"],), "mean": image["mean"], "std": image["std"]}.items():
        if not all(abs(value) < 1e6 for value in values):
            raise CheckpointError(checkpoint.path, f"image.{name}", f"is {values}, which no processor uses")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
