"""SmolVLM, SmolVLM2 (pictures) and Idefics3: a SigLIP tower per tile, pixel shuffle, one linear layer, a Llama.

All three are one architecture: transformers' ``Idefics3ForConditionalGeneration`` and its twin
``SmolVLMForConditionalGeneration``. The prompt layout is that of transformers' ``Idefics3Processor``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_mllm.bundle import ImageSpec, PromptSpec, TileLayout, VisionSpec
from edge_mllm.tilers import LongestEdgeGrid
from edge_mllm_export import published_layout as published
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.family import Family, MmprojSpec, siglip_tensors
from edge_mllm_export.processor_fields import affine, resample_name, special_tokens, stop_tokens
from edge_mllm_export.text_config import decoder_spec, resolved_config, text_config

if TYPE_CHECKING:
    import torch

    from edge_mllm_export.checkpoint import Checkpoint

FAKE, IMAGE, GLOBAL = "<fake_token_around_image>", "<image>", "<global-img>"

LAYOUT = TileLayout(
    before_tile=FAKE + "<row_{row}_col_{col}>",
    after_row="\n",
    before_global="\n" + FAKE + GLOBAL,
    after_global=FAKE,
    before_single=FAKE + GLOBAL,
    after_single=FAKE,
)


def image_spec(checkpoint: Checkpoint) -> ImageSpec:
    """Read preprocessor_config.json."""
    processor = checkpoint.processor
    rescale, mean, std = affine(processor)
    return ImageSpec(
        tiler=LongestEdgeGrid(
            longest_edge=_edge(processor, "size"),
            tile=_edge(processor, "max_image_size"),
            split=bool(processor.get("do_image_splitting", True)),
        ),
        resample=resample_name(processor, default="lanczos"),
        rescale=rescale,
        mean=mean,
        std=std,
    )


def _edge(processor: dict[str, Any], field: str) -> int:
    value = processor.get(field)
    if not isinstance(value, dict) or not isinstance(value.get("longest_edge"), int):
        raise CheckpointError("preprocessor_config.json", f"{field}.longest_edge", f"is {value!r}, expected a number")
    return int(value["longest_edge"])


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """Tile side and visual tokens per tile, checked against the processor's own token count."""
    tile = _edge(checkpoint.processor, "max_image_size")
    config = resolved_config(checkpoint)
    side = tile // config.vision_config.patch_size
    scale = config.scale_factor
    if side % scale:
        reason = f"is {scale}, which does not divide the {side} patches of a tile's side"
        raise CheckpointError("config.json", "scale_factor", reason)
    tokens = (side // scale) ** 2
    declared = checkpoint.processor_settings.get("image_seq_len", tokens)
    if declared != tokens:
        reason = f"is {declared}, but a tile of {tile} px gives {tokens} visual tokens"
        raise CheckpointError("processor_config.json", "image_seq_len", reason)
    return VisionSpec(tokens_per_tile=tokens, tile_height=tile, tile_width=tile)


def prompt_spec(checkpoint: Checkpoint) -> PromptSpec:
    """Token ids and the text around visual tokens."""
    image_token_id = checkpoint.token_id(IMAGE)
    declared = checkpoint.config.get("image_token_id", image_token_id)
    if declared != image_token_id:
        reason = f"is {declared}, but the tokenizer's {IMAGE} is {image_token_id}"
        raise CheckpointError("config.json", "image_token_id", reason)
    # SmolVLM 2.2B and Idefics3-8B have no tokens for the other markers: there they are plain text, as in the processor.
    checkpoint.token_id(FAKE)
    return PromptSpec(
        image_token=IMAGE,
        image_token_id=image_token_id,
        placeholder=IMAGE,
        layout=LAYOUT,
        stop_token_ids=stop_tokens(checkpoint, "<end_of_utterance>"),
        special_tokens=special_tokens(checkpoint),
    )


def tower_shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Every tensor of tower and connector."""
    from edge_mllm_export.families import idefics3_tower

    return idefics3_tower.tower_shapes(resolved_config(checkpoint))


def build_tower(checkpoint: Checkpoint) -> torch.nn.Module:
    """Tower and connector with the checkpoint's weights, float32; nothing of the language model is loaded."""
    from edge_mllm_export.families.idefics3_tower import load_tower

    return load_tower(checkpoint, resolved_config(checkpoint), tile=_edge(checkpoint.processor, "max_image_size"))


def mmproj_keys(checkpoint: Checkpoint) -> dict[str, Any]:
    """Metadata that llama.cpp's libmtmd reads for this tower; floats are float, sizes are int."""
    config = resolved_config(checkpoint)
    vision = config.vision_config
    _, mean, std = affine(checkpoint.processor)
    return {
        "clip.vision.projection_dim": config.text_config.hidden_size,
        "clip.vision.image_size": vision.image_size,
        "clip.vision.patch_size": vision.patch_size,
        "clip.vision.embedding_length": vision.hidden_size,
        "clip.vision.feed_forward_length": vision.intermediate_size,
        "clip.vision.block_count": vision.num_hidden_layers,
        "clip.vision.attention.head_count": vision.num_attention_heads,
        "clip.vision.attention.layer_norm_epsilon": float(vision.layer_norm_eps),
        "clip.vision.image_mean": mean,
        "clip.vision.image_std": std,
        "clip.vision.projector.scale_factor": config.scale_factor,
        "clip.use_gelu": True,
        "clip.vision.preproc_image_size": _edge(checkpoint.processor, "size"),
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
    "require": published.required("do_resize", "do_rescale", "do_normalize", "do_pad"),
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


def reference_processor(checkpoint: Checkpoint) -> Any:
    """Transformers' own processor on its PIL image backend.

    Built from its parts: the class SmolVLM2 checkpoints name also wants a video processor, which needs torchvision.
    """
    from transformers import AutoImageProcessor, AutoTokenizer, Idefics3Processor

    return Idefics3Processor(
        AutoImageProcessor.from_pretrained(checkpoint.path, backend="pil"),
        AutoTokenizer.from_pretrained(checkpoint.path),
        image_seq_len=vision_spec(checkpoint).tokens_per_tile,
        chat_template=checkpoint.chat_template,
    )


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
    reference_processor=reference_processor,
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
