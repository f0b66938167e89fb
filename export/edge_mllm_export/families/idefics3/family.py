"""SmolVLM, SmolVLM2 (pictures) and Idefics3: a SigLIP tower per tile, pixel shuffle, one linear layer, a Llama.

All three are one architecture: transformers' ``Idefics3ForConditionalGeneration`` and its twin
``SmolVLMForConditionalGeneration``. The prompt layout is that of transformers' ``Idefics3Processor``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import ImageSpec, PromptSpec, TileLayout, VisionSpec
from edge_mllm.bundle.tilers import LongestEdgeGrid
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families import published_layout as published
from edge_mllm_export.families.family import Family, MmprojSpec, siglip_tensors, transformer_keys
from edge_mllm_export.families.image_settings import STEPS, ImageSettings, image_settings
from edge_mllm_export.families.processor_fields import image_prompt
from edge_mllm_export.families.text_config import decoder_spec, resolved_config, text_config

if TYPE_CHECKING:
    import torch

    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

FAKE, IMAGE, GLOBAL = "<fake_token_around_image>", "<image>", "<global-img>"

LAYOUT = TileLayout(
    before_tile=FAKE + "<row_{row}_col_{col}>",
    after_row="\n",
    before_global="\n" + FAKE + GLOBAL,
    after_global=FAKE,
    before_single=FAKE + GLOBAL,
    after_single=FAKE,
)


_DEFAULTS: dict[str, Any] = STEPS | {
    "resample": 1,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "size": {"longest_edge": 4 * 364},
    "max_image_size": {"longest_edge": 364},
    "do_image_splitting": True,
}
_CLASSES = {"Idefics3ImageProcessor": _DEFAULTS, "SmolVLMImageProcessor": _DEFAULTS}
"""What both classes use where preprocessor_config.json says nothing. Their ``do_pad`` fills up a batch with tiles that
no model sees."""


def image_spec(checkpoint: Checkpoint) -> ImageSpec:
    """Read preprocessor_config.json."""
    settings = image_settings(checkpoint, _CLASSES)
    settings.require("do_resize", "pictures would keep their size before they are cut")
    tiler = LongestEdgeGrid(
        longest_edge=_edge(settings, "size"), tile=_tile(checkpoint), split=settings.step("do_image_splitting")
    )
    return settings.spec(tiler)


def _edge(settings: ImageSettings, field: str) -> int:
    size = settings.sides(field)
    if set(size) != {"longest_edge"}:
        raise settings.fault(field, f"is {settings.values[field]!r}, expected longest_edge alone")
    return size["longest_edge"]


def _tile(checkpoint: Checkpoint) -> int:
    return _edge(image_settings(checkpoint, _CLASSES), "max_image_size")


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """Tile side and visual tokens per tile."""
    tile = _tile(checkpoint)
    config = resolved_config(checkpoint)
    side = tile // config.vision_config.patch_size
    scale = config.scale_factor
    if side % scale:
        reason = f"is {scale}, which does not divide the {side} patches of a tile's side"
        raise CheckpointError("config.json", "scale_factor", reason)
    tokens = (side // scale) ** 2
    return VisionSpec(tokens_per_tile=tokens, tile_height=tile, tile_width=tile)


def prompt_spec(checkpoint: Checkpoint) -> PromptSpec:
    """Token ids and the text around visual tokens."""
    # SmolVLM 2.2B and Idefics3-8B have no tokens for the other markers: there they are plain text, as in the processor.
    checkpoint.token_id(FAKE)
    return image_prompt(checkpoint, IMAGE, LAYOUT, "<end_of_utterance>", "image_token_id")


def tower_shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Every tensor of tower and connector."""
    from edge_mllm_export.families.idefics3 import tower as idefics3_tower

    return idefics3_tower.tower_shapes(resolved_config(checkpoint))


def build_tower(checkpoint: Checkpoint) -> torch.nn.Module:
    """Tower and connector with the checkpoint's weights, float32; nothing of the language model is loaded."""
    from edge_mllm_export.families.idefics3.tower import load_tower

    return load_tower(checkpoint, resolved_config(checkpoint), tile=_tile(checkpoint))


def mmproj_keys(checkpoint: Checkpoint) -> dict[str, Any]:
    """Metadata that llama.cpp's libmtmd reads for this tower; floats are float, sizes are int."""
    config = resolved_config(checkpoint)
    vision = config.vision_config
    image = image_spec(checkpoint)
    assert isinstance(image.tiler, LongestEdgeGrid)  # noqa: S101  (made above)
    return {
        **transformer_keys(config, image, side=vision.image_size, patch=vision.patch_size),
        "clip.vision.projector.scale_factor": config.scale_factor,
        "clip.use_gelu": True,
        "clip.vision.preproc_image_size": image.tiler.longest_edge,
    }


MMPROJ = MmprojSpec(
    projector_type="idefics3",
    keys=mmproj_keys,
    tensors=siglip_tensors("model.vision_model.")
    | {"model.connector.modality_projection.proj.weight": "mm.model.fc.weight"},
)


_TILE = published.read("processor.max_image_size.longest_edge")
PUBLISHED = {
    "model_types": ["idefics3", "smolvlm"],
    "require": published.required("do_resize", "do_rescale", "do_normalize"),
    "image": published.image(
        {
            "kind": "longest_edge_grid",
            "longest_edge": published.read("processor.size.longest_edge"),
            "tile": _TILE,
            "split": published.read("processor.do_image_splitting", default=True),
        },
        resample="lanczos",
        mean=[0.5, 0.5, 0.5],
        std=[0.5, 0.5, 0.5],
    ),
    "vision": {
        "tokens_per_tile": {
            "tokens": [
                _TILE,
                published.read("config.vision_config.patch_size", default=32),
                published.read("config.scale_factor", default=2),
                0,
            ]
        },
        "tile_height": _TILE,
        "tile_width": _TILE,
    },
    "prompt": published.prompt(
        published.read("settings.image_token", default=IMAGE),
        ["config.image_token_id"],
        LAYOUT,
        ["<end_of_utterance>"],
    ),
    "decoder": published.decoder(),
}


def counts(checkpoint: Checkpoint) -> dict[str, Any]:
    """The processor's visual tokens of a tile."""
    return {"image_seq_len": vision_spec(checkpoint).tokens_per_tile}


FAMILY = Family(
    name="idefics3",
    architectures=("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration"),
    image=image_spec,
    vision=vision_spec,
    prompt=prompt_spec,
    decoder=decoder_spec,
    text_config=text_config,
    text_tensors={"model.text_model.": "model.", "lm_head.": "lm_head."},
    tower_shapes=tower_shapes,
    build_tower=build_tower,
    counts=counts,
    mmproj=MMPROJ,
    published=PUBLISHED,
    checkpoints=(
        "HuggingFaceTB/SmolVLM-256M-Instruct",
        "HuggingFaceTB/SmolVLM-500M-Instruct",
        "HuggingFaceTB/SmolVLM-Instruct",
        "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
        "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        "HuggingFaceM4/Idefics3-8B-Llama3",
    ),
    licence="Apache-2.0",
)
