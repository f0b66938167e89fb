"""What is known of a model before it runs: sizes of its parts in every recipe, how it cuts pictures, its shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_mllm.bundle.files import DECODER_PARTS, OpenBundle
from edge_mllm.bundle.gguf_header import decode_bytes
from edge_mllm.bundle.spec import BundleSpec, Engine, ImageSpec, VisionSpec
from edge_mllm.costs.shapes import ModelShape
from edge_mllm.picture.tile_plan import plan_tiles
from edge_mllm.typed_json import FieldError, leave_out, read_typed


@dataclass(frozen=True, kw_only=True)
class PartSize:
    """One part in one recipe."""

    recipe: str
    weight_bytes: int
    """Stored weights, exactly: scales, norms and tables included, names and graph not."""
    file_bytes: int | None = None
    """Of the files as they lie on disk; None before they were written."""
    token_bytes: int = 0
    """Of a decoder: what is read for every generated token."""
    default: bool = False
    prompt: str = ""
    """Of an ONNX decoder: recipe of the prompt weights that are among its files."""

    @property
    def prefill(self) -> str:
        """What computes a prompt, as lines of a device profile call it."""
        return prefill_recipe(self.recipe, self.prompt)

    @property
    def bytes(self) -> int:
        """The files' size where they are there, else that of the weights in them."""
        return self.weight_bytes if self.file_bytes is None else self.file_bytes


@dataclass(frozen=True, kw_only=True)
class PicturePlan:
    """What pictures of one size become."""

    width: int
    height: int
    tiles: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A checkpoint that was not downloaded, a shape, or a bundle."""

    name: str
    context_length: int
    image: ImageSpec
    vision: VisionSpec
    decoders: Mapping[Engine, Sequence[PartSize]]
    towers: Sequence[PartSize]
    shape: ModelShape | None = None
    """None where it is not known: times are not told then."""
    notes: tuple[str, ...] = field(default=())

    def picture(self, width: int, height: int) -> PicturePlan:
        """Tiles and visual tokens of a picture.

        Raises:
            ImageError: The model takes no picture of this size.
        """
        plan = plan_tiles(width, height, self.image.tiler)
        return PicturePlan(
            width=width, height=height, tiles=plan.count, tokens=plan.tokens(self.vision.tokens_per_tile)
        )


def facts_of_bundle(bundle: OpenBundle) -> ModelFacts:
    """Read a bundle's manifest and the headers of its files."""
    spec = bundle.spec
    decoders: dict[Engine, Sequence[PartSize]] = {}
    if "decoder_gguf" in spec.parts:
        part = spec.parts["decoder_gguf"]
        read = decode_bytes(bundle.file("decoder_gguf"))
        decoders["gguf"] = [_written(part.precision, part.bytes, read)]
    if "decoder_onnx" in spec.parts:
        sizes = {name: spec.parts[name].bytes for name in DECODER_PARTS["onnx"] if name in spec.parts}
        read = sum(sizes[name] for name in ("decoder_onnx", "decoder_onnx_data") if name in sizes)
        written = _written(spec.parts["decoder_onnx"].precision, sum(sizes.values()), read)
        decoders["onnx"] = [dataclasses.replace(written, prompt=prompt_recipe(spec))]
    tower = sum(part.bytes for name, part in spec.parts.items() if name in ("vision", "vision_data"))
    shape = read_shape(spec.recipe.get("vision", {}).get("shape"))
    note = () if shape else ("this bundle does not record its shape, so no times are told; export it again",)
    return ModelFacts(
        name=spec.name,
        context_length=spec.decoder.context_length,
        image=spec.image,
        vision=spec.vision,
        decoders=decoders,
        towers=[_written(spec.parts["vision"].precision, tower, 0)],
        shape=shape,
        notes=note,
    )


def prompt_recipe(spec: BundleSpec) -> str:
    """Recipe of a bundle's prompt weights; "" where it has none."""
    return spec.parts["prompt_onnx"].precision if "prompt_onnx" in spec.parts else ""


def prefill_recipe(decoder: str, prompt: str) -> str:
    """What lines of a device profile call the weights that a prompt is computed with."""
    return f"{decoder}+{prompt}" if prompt else decoder


def read_shape(data: Any) -> ModelShape | None:
    """A shape as bundle.json records it; None where there is none that can be read."""
    if not isinstance(data, dict):
        return None
    try:
        shape: ModelShape = read_typed(ModelShape, data)
    except FieldError:
        return None
    return shape


def write_shape(shape: ModelShape) -> dict[str, Any]:
    """The form :func:`read_shape` reads."""
    data = dataclasses.asdict(shape)
    leave_out(shape, data)
    return data


def _written(recipe: str, size: int, read: int) -> PartSize:
    return PartSize(recipe=recipe, weight_bytes=size, file_bytes=size, token_bytes=read, default=True)
