"""What a caller can choose about an export."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edge_mllm.errors import SettingError
from edge_mllm.tower.engines import SLOW_IN_OPENVINO
from edge_mllm_export.targets import Target, read_targets
from edge_mllm_quant.recipes.override import Override, apply_overrides
from edge_mllm_quant.recipes.recipe import RECIPES, Component, Recipe, UnknownRecipeError, find_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

AUTO = "auto"
KVPrecision = Literal["q8"]
Format = Literal["onnx", "gguf", "both"]
FORMATS: dict[str, tuple[Component, ...]] = {"onnx": ("onnx",), "gguf": ("gguf",), "both": ("gguf", "onnx")}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far quantised parts may depart from the checkpoint, over the reference's own continuations.

    Raises:
        SettingError: A limit is outside its range.
    """

    min_top1: float = 0.8
    """Smallest share of positions whose most likely token is the reference's."""
    max_kl: float = 0.5
    """Largest mean KL divergence from the reference, in nats per token."""
    min_cosine: float = 0.98
    """Smallest mean cosine of a tile's visual embeddings with the reference's."""

    def __post_init__(self) -> None:
        for name, lowest, highest in (("min_top1", 0.0, 1.0), ("max_kl", 0.0, math.inf), ("min_cosine", -1.0, 1.0)):
            value = getattr(self, name)
            if not lowest <= value <= highest:
                span = f"{lowest:g} or more" if math.isinf(highest) else f"{lowest:g} to {highest:g}"
                raise SettingError(f"{name} is {value:g}, it must be {span}")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The options of one export."""

    format: Format = "both"
    quant: str | None = None
    """Decoder recipe, or one per engine with a comma between: ``q8_0,int8_b32``; ``auto`` measures and chooses."""
    kv: KVPrecision | None = None
    """``q8``: decoder.onnx keeps keys and values in 8 bits; None: in 32. decoder.gguf is told so when it runs."""
    prompt_weights: str | None = None
    """Recipe of a second set of weights that the ONNX engine computes prompts with; None: there is none."""
    max_size: int | None = None
    """``auto``: most bytes of a decoder (with its embedding table) and the tower together."""
    max_loss: float | None = None
    """``auto``: most loss of them together, in nats of KL divergence per token."""
    vision: str | None = None
    """Recipe of the tower; after a comma that of a second one for OpenVINO, as ``int8,int8_static``."""
    mmproj: bool = False
    base: str | None = None
    """A directory or hub id of an adapter's base; None: what the adapter names."""
    tile_tags: bool = False
    """Put a text tag before every tile, for checkpoints that were trained so."""
    pan_and_scan: bool = False
    """Cut long pictures into crops beside the whole, for models whose processor does so on demand."""
    verify: bool = True
    force: bool = False
    allow_loss: bool = False
    """Report the loss of quantised parts and write the bundle whatever it is."""
    limits: Limits = field(default_factory=Limits)
    calibration: bool | None = None
    """Quantise decoders with what their layers see when the checkpoint answers questions about pictures; None: yes,
    but not random weights, for which it means nothing."""
    calibrate: Path | None = None
    """Pictures (and questions.txt) to calibrate with; None: the set that ships."""
    target: str | tuple[str, ...] | None = None
    """NPUs to write the tower for as well, one name a kind, see :func:`edge_mllm_export.targets.read_targets`."""
    npu_precision: str | None = None
    """``a16w8`` (activations in 16 bits, weights in 8; None for Hexagon), ``a8w8``, ``fp16`` (None for Rockchip) or
    ``int8``; a kind of NPU that does not know it has its default."""
    overrides: tuple[Override, ...] = ()
    """Types of single tensors or components, the first that matches decides."""

    @property
    def vision_names(self) -> tuple[str | None, str | None]:
        """Recipes of the tower (None: the default) and of a second one for OpenVINO (None: there is none).

        Raises:
            SettingError: There are more, or OpenVINO is slow with the second.
        """
        if self.vision is None:
            return None, None
        first, *others = (name.strip() for name in self.vision.split(","))
        if len(others) > 1 or (others and others[0] in SLOW_IN_OPENVINO):
            raise SettingError(
                f"vision is '{self.vision}'; after a comma stands one tower for OpenVINO: int8_static, fp16 or fp32"
            )
        return first, others[0] if others else None

    def chosen_targets(self) -> tuple[Target, ...]:
        """The NPUs, read.

        Raises:
            SettingError: There is none of this name, or a precision is given without one.
        """
        names = (self.target,) if isinstance(self.target, str) else self.target or ()
        if self.npu_precision is not None and not names:
            raise SettingError("`npu_precision` is for the tower of an NPU; name one with `target`")
        return read_targets(names, self.npu_precision)


def choose_recipes(options: ExportOptions) -> Mapping[Component, Recipe]:
    """Resolve the options to one recipe per component that will be written.

    Raises:
        SettingError: The format is unknown.
        UnknownRecipeError: A name is known for none of the chosen engines; the message lists the known ones.
    """
    if options.format not in FORMATS:
        raise SettingError(f"unknown format '{options.format}'; known: {', '.join(FORMATS)}")
    engines = FORMATS[options.format]
    _check_auto(options)
    chosen: dict[Component, Recipe] = {engine: find_recipe(engine) for engine in engines}
    for name in ("" if options.quant in (None, AUTO) else str(options.quant)).split(","):
        fitting = [recipe for recipe in RECIPES if recipe.name == name.strip() and recipe.component in engines]
        if name and not fitting:
            raise UnknownRecipeError(name.strip(), *engines)
        chosen |= {recipe.component: recipe for recipe in fitting}
    if options.kv is not None:
        if "onnx" not in chosen:
            raise SettingError("`kv` is for decoder.onnx; llama.cpp chooses when it runs: edge-mllm run --kv-type q8_0")
        chosen["onnx"] = replace(chosen["onnx"], lossless=False)
    if options.prompt_weights is not None:
        chosen["prompt"] = _prompt_weights(options, chosen)
    vision, beside = options.vision_names
    chosen["vision"] = find_recipe("vision", vision)
    if beside is not None:
        chosen["vision_openvino"] = find_recipe("vision", beside)
    if options.mmproj:
        chosen["mmproj"] = find_recipe("mmproj")
    return apply_overrides(chosen, options.overrides)


def _prompt_weights(options: ExportOptions, chosen: Mapping[Component, Recipe]) -> Recipe:
    recipe = find_recipe("prompt", options.prompt_weights)
    if "onnx" not in chosen or chosen["onnx"].bits >= _FLOATS:
        raise SettingError("`prompt_weights` is for a quantised decoder.onnx, and none is written")
    return recipe


_FLOATS = 16


def _check_auto(options: ExportOptions) -> None:
    limited = options.max_size is not None or options.max_loss is not None
    if options.quant != AUTO:
        if limited:
            raise SettingError("`max_size` and `max_loss` are for `quant='auto'`")
        return
    if not limited:
        raise SettingError("`quant='auto'` needs a limit: `max_size`, `max_loss` (nats per token), or both")
    if options.max_loss is not None and not options.max_loss >= 0:
        raise SettingError(f"max_loss is {options.max_loss:g}, it must be 0 or more")
    if options.overrides:
        raise SettingError("`quant='auto'` chooses the exceptions itself; leave `overrides` out, or name a recipe")
