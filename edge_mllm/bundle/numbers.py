"""Numbers of a specification that would lead to huge allocations or to nonsense."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from edge_mllm.bundle.spec import BundleSpec
from edge_mllm.errors import BundleError

_MAX_DIMENSION = 1 << 24
"""As many pixels may published processors of native resolution leave to a picture."""


def check_numbers(root: Path, spec: BundleSpec, *, where: str = "bundle.json") -> None:
    """Refuse numbers that would lead to huge allocations or to nonsense.

    Args:
        root: Of the model, for the message.
        spec: To check.
        where: What the numbers come from, for the message.

    Raises:
        BundleError: One is not sane.
    """
    decoder, vision, image = spec.decoder, spec.vision, spec.image
    dimensions = {f"decoder.mrope_sections[{i}]": size for i, size in enumerate(decoder.mrope_sections)}
    sections = {"decoder": decoder, "vision": vision, "vision.patches": vision.patches}
    for prefix, part in {**sections, "image.tiler": image.tiler, "image.several": image.several}.items():
        dimensions |= _whole_numbers(prefix, part)
    for name, value in dimensions.items():
        if not 0 < value <= _MAX_DIMENSION:
            raise BundleError(root, f"{where}, {name}: {value} is not a sane size")
    if (decoder.deepstack_layers or 0) >= decoder.n_layer:
        reason = f"{decoder.deepstack_layers} of {decoder.n_layer} layers, the last of which takes none"
        raise BundleError(root, f"{where}, decoder.deepstack_layers: {reason}")
    if (decoder.state_layers or 0) > decoder.n_layer:
        raise BundleError(root, f"{where}, decoder.state_layers: {decoder.state_layers} of {decoder.n_layer} layers")
    for name, values in {"image.std": image.std, "image.rescale": (image.rescale,)}.items():
        if min(values) <= 0:
            raise BundleError(root, f"{where}, {name}: {min(values)} is not above zero")
    ids = {"image_token_id": (spec.prompt.image_token_id,), "stop_token_ids": spec.prompt.stop_token_ids}
    ids["canvas_marks"] = spec.prompt.canvas_marks
    for name, values in {**ids, "bos_token_id": (spec.prompt.bos_token_id or 0,)}.items():
        if any(not 0 <= value < decoder.n_vocab for value in values):
            raise BundleError(root, f"{where}, prompt.{name}: outside the vocabulary of {decoder.n_vocab}")


def _whole_numbers(prefix: str, part: Any) -> dict[str, int]:
    """The whole numbers among a dataclass's fields; none of None."""
    values = {field.name: getattr(part, field.name) for field in fields(part)} if part is not None else {}
    return {
        f"{prefix}.{name}": value
        for name, value in values.items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
