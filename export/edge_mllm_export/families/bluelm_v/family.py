"""BlueLM-V-3B as a recipe: SigLIP, relaxed aspect-ratio matching, a 2x2 token downsampler, an MLP, a Llama.

The weights are not public. What the paper says (Lu et al., arXiv 2411.10640) is here: the choice of a grid with alpha
0.1, a thumbnail beside the tiles, 196 tokens a tile. What it does not say is LLaVA-NeXT's: the thumbnail comes first,
pictures are centred on black, nothing stands between the tiles' tokens, and the language model is a Llama.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import ImageSpec, VisionSpec
from edge_mllm.bundle.tilers import BestFitGrid
from edge_mllm_export.families.family import Family
from edge_mllm_export.families.image_settings import STEPS, ImageSettings, image_settings
from edge_mllm_export.families.llava import anyres
from edge_mllm_export.families.llava.llava import prompt_spec
from edge_mllm_export.families.llava.parts import TowerParts
from edge_mllm_export.families.text_config import decoder_spec, resolved_config, text_config

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

ALPHA = 0.1
"""Share of effective resolution that a smaller grid may give up (section 4.2 of the paper)."""
DEFAULTS: dict[str, Any] = STEPS | {
    "default_to_square": False,
    "resample": 3,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "size": {"height": 384, "width": 384},
    "crop_size": None,
    "do_center_crop": None,
    "image_grid_pinpoints": [],
    "relaxation": ALPHA,
}
"""What a checkpoint that leaves a field out is taken to say."""
_CLASSES = {"BlueLMVImageProcessor": DEFAULTS, "LlavaNextImageProcessor": DEFAULTS}


def image_spec(checkpoint: Checkpoint) -> ImageSpec:
    """Read preprocessor_config.json."""
    settings = image_settings(checkpoint, _CLASSES)
    tile = anyres.tile_side(settings)
    return settings.spec(BestFitGrid(tile=tile, grids=anyres.grids(settings, tile), slack=_alpha(settings)))


def _alpha(settings: ImageSettings) -> float:
    alpha = settings.values["relaxation"]
    if not isinstance(alpha, float | int) or isinstance(alpha, bool) or not 0 <= alpha < 1:
        raise settings.fault("relaxation", f"is {alpha!r}, expected a number from 0 to below 1")
    return float(alpha)


def _config(checkpoint: Checkpoint) -> Any:
    from edge_mllm_export.families.bluelm_v.model import BlueLMVConfig

    return resolved_config(checkpoint, BlueLMVConfig)


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """Tile side and visual tokens per tile."""
    from edge_mllm_export.families.bluelm_v.model import tokens_per_tile

    config = _config(checkpoint)
    tile = anyres.check_tower(config, image_settings(checkpoint, _CLASSES))
    return VisionSpec(tokens_per_tile=tokens_per_tile(config), tile_height=tile, tile_width=tile)


def _projector() -> Any:
    from edge_mllm_export.families.bluelm_v.model import BlueLMVProjector

    return BlueLMVProjector


_TOWER = TowerParts(config=_config, projector=_projector)


def model_class() -> Any:
    """The reference, which transformers does not have."""
    from edge_mllm_export.families.bluelm_v.model import BlueLMVForConditionalGeneration

    return BlueLMVForConditionalGeneration


def reference_processor(checkpoint: Checkpoint) -> Any:
    """Algorithm 1 of the paper with transformers' PIL image processor of LLaVA-NeXT."""
    from edge_mllm_export.families.bluelm_v.processor import make_processor

    return make_processor(
        checkpoint,
        alpha=_alpha(image_settings(checkpoint, _CLASSES)),
        defaults=DEFAULTS,
        tokens=vision_spec(checkpoint).tokens_per_tile,
        image_token=prompt_spec(checkpoint).image_token,
    )


FAMILY = Family(
    name="bluelm_v",
    architectures=("BlueLMVForConditionalGeneration",),
    image=image_spec,
    vision=vision_spec,
    prompt=prompt_spec,
    decoder=partial(decoder_spec, config=_config),
    config=_config,
    text_config=partial(text_config, config=_config),
    tower_shapes=_TOWER.shapes,
    stored_tower=_TOWER.stored,
    build_tower=_TOWER.build,
    reference_processor=reference_processor,
    model_class=model_class,
    checkpoints=("none: the weights are not public",),
    licence="no weights",
)
