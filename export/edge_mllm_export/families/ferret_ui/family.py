"""Ferret-UI: a CLIP on the whole screen and on its parts, stretched; their tokens as one map; a Gemma or a Llama.

Checkpoints come here from :mod:`edge_mllm_export.source.layouts.ferret`. The paper (You et al., arXiv 2404.05719) cuts
a screen in two: one above the other, or side by side, as it stands or lies. The published models have LLaVA-NeXT's five
grids, and apple/ml-ferret takes the one that keeps most pixels; the screen is stretched onto it instead of padded
(``process_anyres_image``), and the tokens of its parts follow the whole screen's, row by row of the screen, without
newlines (``mm_patch_merge_type`` "spatial"). ``image_grid_pinpoints`` says which grids a checkpoint has.

Regions are given as text, as the paper's box coordinates: ``[x1, y1, x2, y2]``, each from 0 to 1000. The sampler that
adds features of a region's mask to them is not done here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import ImageSpec, VisionSpec
from edge_mllm.bundle.tilers import Stitch
from edge_mllm_export.families.family import Family
from edge_mllm_export.families.image_settings import STEPS, image_settings
from edge_mllm_export.families.llava import anyres
from edge_mllm_export.families.llava.llava import CLIP_MEAN, CLIP_STD, prompt_spec
from edge_mllm_export.families.llava.parts import TowerParts
from edge_mllm_export.families.text_config import plain_decoder_spec, resolved_config, text_config

if TYPE_CHECKING:
    from edge_mllm.bundle.spec import DecoderSpec
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

_CLASSES: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": STEPS
    | {
        "resample": 3,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "size": {"height": 336, "width": 336},
        "crop_size": None,
        "do_center_crop": None,
        "image_grid_pinpoints": [],
    }
}
"""What apple/ml-ferret does where preprocessor_config.json says nothing. It stretches every tile and crops none."""


def image_spec(checkpoint: Checkpoint) -> ImageSpec:
    """Read preprocessor_config.json; it and the model must name the same grids."""
    settings = image_settings(checkpoint, _CLASSES)
    settings.require("do_resize", "pictures would keep their size")
    if settings.step("do_center_crop"):
        raise settings.fault("do_center_crop", "is true, which no released model of this kind uses")
    if settings.resample != "bicubic":  # what Pillow does where it is not told, before CLIP's processor sees a tile
        raise settings.fault("resample", f"is {settings.values['resample']!r}, but this model's code resizes with 3")
    tile = anyres.tile_side(settings)
    return settings.spec(
        anyres.best_fit_grid(_config(checkpoint), settings, tile, Stitch(plain=True), fit="stretch"),
    )


def _config(checkpoint: Checkpoint) -> Any:
    from edge_mllm_export.families.ferret_ui.model import FerretUIConfig

    return resolved_config(checkpoint, FerretUIConfig)


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """Tile side and visual tokens per tile."""
    return anyres.vision_spec(_config(checkpoint), image_settings(checkpoint, _CLASSES))


def decoder_spec(checkpoint: Checkpoint) -> DecoderSpec:
    """Dimensions of the language model. A Gemma scales its input, pictures as text."""
    text = _config(checkpoint).text_config
    spec = plain_decoder_spec(text)
    if text.model_type != "gemma":
        return spec
    return replace(spec, embedding_scale=float(text.hidden_size**0.5), scales_pictures=True)


def _projector() -> Any:
    from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

    return LlavaMultiModalProjector


_TOWER = TowerParts(config=_config, projector=_projector)


def model_class() -> Any:
    """The reference, which transformers does not have."""
    from edge_mllm_export.families.ferret_ui.model import FerretUIForConditionalGeneration

    return FerretUIForConditionalGeneration


def image_processor_settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """All settings of the image processor, those of its class where the file is silent."""
    return image_settings(checkpoint, _CLASSES).values


def reference_processor(checkpoint: Checkpoint) -> Any:
    """apple/ml-ferret's tiles with transformers' PIL image processor of CLIP."""
    from edge_mllm_export.families.ferret_ui.processor import make_processor

    settings = image_settings(checkpoint, _CLASSES)
    return make_processor(
        checkpoint,
        settings.values,
        side=anyres.tile_side(settings),
        tokens=vision_spec(checkpoint).tokens_per_tile,
        image_token=prompt_spec(checkpoint).image_token,
    )


FAMILY = Family(
    name="ferret_ui",
    architectures=("FerretUIForConditionalGeneration",),
    image=image_spec,
    vision=vision_spec,
    prompt=prompt_spec,
    decoder=decoder_spec,
    config=_config,
    text_config=partial(text_config, config=_config),
    tower_shapes=_TOWER.shapes,
    stored_tower=_TOWER.stored,
    build_tower=_TOWER.build,
    reference_processor=reference_processor,
    model_class=model_class,
    checkpoints=("jadechoghari/Ferret-UI-Gemma2b", "jadechoghari/Ferret-UI-Llama8b"),
    licence="CC-BY-NC (research use only), Gemma or Llama 3",
)
