"""The image processor's settings as transformers 5 reads them.

A field that is absent has the default of the processor's class. A field that is null has no value, which switches a
step off: ``ImageProcessingMixin`` sets it on the object before defaults are filled in, and the steps ask ``if
do_normalize``. What a step needs and is null is an error there, and here one that names the file and the field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import ImageSpec, Resample
from edge_mllm.bundle.tilers import Tiler
from edge_mllm_export.errors import CheckpointError

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

Triple = tuple[float, float, float]

PILLOW_FILTERS: dict[int, Resample] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}
"""Values of ``PIL.Image.Resampling``, which is what the ``resample`` field holds."""
STEPS: dict[str, Any] = {
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "default_to_square": True,
    "do_center_crop": None,
    "crop_size": None,
}
"""Defaults that most classes share, of fields that every class reads or at least checks."""
_EXTRACTOR = "FeatureExtractor"


@dataclass(frozen=True)
class ImageSettings:
    """Every field that the processor's class reads, with its value in this checkpoint."""

    values: Mapping[str, Any]
    file: str
    prefix: str = ""
    """Of a field's name inside the file."""

    def fault(self, field: str, reason: str) -> CheckpointError:
        """An error that names the file and the field."""
        return CheckpointError(self.file, self.prefix + field, reason)

    def step(self, name: str) -> bool:
        """Whether a step is done.

        Raises:
            CheckpointError: The field is neither true, false nor null.
        """
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.fault(name, f"is {json.dumps(value)}, expected true, false or null")
        return bool(value)

    def require(self, name: str, what: str) -> None:
        """Refuse a checkpoint that leaves a step out.

        Args:
            name: The step.
            what: What its processor would then give.
        """
        if not self.step(name):
            raise self.fault(name, f"is {json.dumps(self.values.get(name))}: {what}, which cannot be exported")

    def number(self, name: str, *, least: int = 1) -> int:
        """A whole number.

        Raises:
            CheckpointError: It is something else, or below ``least``.
        """
        value = self.values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.fault(name, f"is {json.dumps(value)}, expected a whole number from {least} on")
        return value

    def sides(self, name: str, *, square: bool | None = None) -> dict[str, int]:
        """A size as transformers writes it out: a number or a list becomes named sides.

        Args:
            name: The field.
            square: Whether one number is both sides; None asks ``default_to_square``.

        Raises:
            CheckpointError: It is none of the known kinds of size.
        """
        value: Any = self.values.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            both = self.step("default_to_square") if square is None else square
            value = {"height": value, "width": value} if both else {"shortest_edge": value}
        elif isinstance(value, list) and len(value) == 2:
            value = {"height": value[0], "width": value[1]}
        known = isinstance(value, dict) and any(set(value) == keys for keys in _SIZES)
        if not known or any(not isinstance(side, int) or isinstance(side, bool) or side < 1 for side in value.values()):
            raise self.fault(name, f"is {json.dumps(self.values.get(name))}, which is no size of a picture")
        return dict(value)

    def square(self, name: str, *, square: bool | None = None, shortest: bool = False) -> int:
        """The side of a size with equal height and width.

        Args:
            name: The field.
            square: As for :meth:`sides`.
            shortest: Whether ``shortest_edge`` alone says it too.

        Raises:
            CheckpointError: It is another kind of size.
        """
        found = self.sides(name, square=square)
        if shortest and set(found) == {"shortest_edge"}:
            return found["shortest_edge"]
        if found.get("height") is None or found["height"] != found["width"]:
            raise self.fault(name, f"is {json.dumps(self.values.get(name))}, expected one square")
        return found["height"]

    @property
    def resample(self) -> Resample:
        """The resize filter by name.

        Raises:
            CheckpointError: The field is not one of Pillow's six filters.
        """
        value = self.values.get("resample")
        if not isinstance(value, int) or isinstance(value, bool) or value not in PILLOW_FILTERS:
            raise self.fault("resample", f"is {json.dumps(value)}, expected 0 to 5")
        return PILLOW_FILTERS[value]

    def _affine(self) -> tuple[float, Triple, Triple]:
        """Rescale factor, mean and standard deviation; steps that are left out become the identity.

        Raises:
            CheckpointError: A value that a step needs is missing or makes no sense.
        """
        rescale: Any = self.values.get("rescale_factor") if self.step("do_rescale") else 1.0
        if not _is_number(rescale) or not rescale > 0:
            raise self.fault("rescale_factor", f"is {json.dumps(rescale)}, expected a number above 0")
        if not self.step("do_normalize"):
            return float(rescale), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        std = self._triple("image_std")
        if not min(std) > 0:
            raise self.fault("image_std", f"is {json.dumps(self.values['image_std'])}, expected numbers above 0")
        return float(rescale), self._triple("image_mean"), std

    def spec(self, tiler: Tiler, several: Tiler | None = None) -> ImageSpec:
        """The image processing of a bundle.

        Args:
            tiler: How pictures are cut.
            several: How they are where a conversation has more than one; None for the same.

        Raises:
            CheckpointError: A value that a step needs is missing or makes no sense.
        """
        rescale, mean, std = self._affine()
        return ImageSpec(tiler=tiler, several=several, resample=self.resample, rescale=rescale, mean=mean, std=std)

    def fill(self) -> tuple[int, int, int]:
        """The mean as an 8-bit colour, which some classes pad with.

        Raises:
            CheckpointError: It is no list of three numbers, or no colour.
        """
        values = self.values.get("image_mean")
        if not isinstance(values, list):
            raise self.fault("image_mean", f"is {json.dumps(values)}, but pictures are padded with that colour")
        red, green, blue = (int(value * 255) for value in self._triple("image_mean"))
        if not all(0 <= level <= 255 for level in (red, green, blue)):
            raise self.fault("image_mean", f"is {json.dumps(values)}, but pictures are padded with that colour")
        return red, green, blue

    def _triple(self, field: str) -> Triple:
        values = self.values.get(field)
        values = [values] * 3 if _is_number(values) else values
        if not isinstance(values, list) or len(values) != 3 or not all(map(_is_number, values)):
            raise self.fault(field, f"is {json.dumps(self.values.get(field))}, expected three numbers")
        return float(values[0]), float(values[1]), float(values[2])


_SIZES = (
    {"height", "width"},
    {"shortest_edge"},
    {"shortest_edge", "longest_edge"},
    {"longest_edge"},
    {"max_height", "max_width"},
    {"min_pixels", "max_pixels"},
)
"""transformers' VALID_SIZE_DICT_KEYS (image_processing_utils.py)."""


def image_settings(checkpoint: Checkpoint, classes: Mapping[str, Mapping[str, Any]]) -> ImageSettings:
    """The settings of a checkpoint.

    Args:
        checkpoint: Its file is preprocessor_config.json, or the nested part of processor_config.json.
        classes: Image processors that are known, without the endings of their backends -> their defaults, of every
            field that they read; the first is the one of checkpoints that name none.

    Raises:
        CheckpointError: It names another image processor.
    """
    given = checkpoint.processor
    kind, field = given.get("image_processor_type"), "image_processor_type"
    if kind is None and given.get("feature_extractor_type") is not None:
        field = "feature_extractor_type"
        kind = str(given[field]).replace(_EXTRACTOR, "ImageProcessor")
    name = next(iter(classes)) if kind is None else str(kind).removesuffix("Fast").removesuffix("Pil")
    file, prefix = checkpoint.processor_place
    if name not in classes:
        known = ", ".join(classes)
        raise CheckpointError(file, prefix + field, f"is {json.dumps(given.get(field))}, known here: {known}")
    defaults = {"image_processor_type": name, **classes[name]}
    read = {field: given[field] for field in classes[name] if field in given}
    settings = ImageSettings(defaults | read, file, prefix)
    if settings.step("do_center_crop") and settings.values["crop_size"] is None:  # checked by all classes
        raise settings.fault("crop_size", "is null, but do_center_crop is true")
    return settings


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
