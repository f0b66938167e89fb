"""MiniCPM-V 2.6, 4.0 and 4.5: adaptive slices, a SigLIP at each slice's own shape, 64 queries, a Qwen2, Llama or Qwen3.

The published directories need code of their own (``auto_map``); none of it is run. Their configuration and tensors are
read as they are: ``vpm`` is the tower, ``resampler`` lets 64 learned queries look at each slice's patches, ``llm`` is
the language model, whose kind the field ``version`` says. Slices, marks and ids are those of the publisher's
``MiniCPMVImageProcessor`` and ``MiniCPMVProcessor``; :mod:`.processor` writes them down a second time as the reference.

4.0's language model was trained as a MiniCPM4, with factors on embeddings, residuals and logits; the release has them
in its weights, and is a plain Llama. Directories that still name such factors are refused. Of 4.5, pictures are read;
packing frames of videos into one set of queries is not done here.
"""

from __future__ import annotations

import json
import math
from functools import partial
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import DecoderSpec, ImageSpec, PatchInput, PromptSpec, TileLayout, VisionSpec
from edge_mllm.bundle.tilers import AdaptiveSlices
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.family import Family, Shapes
from edge_mllm_export.families.image_settings import ImageSettings, image_settings
from edge_mllm_export.families.minicpm_v.mmproj import resampler
from edge_mllm_export.families.processor_fields import special_tokens, stop_tokens
from edge_mllm_export.families.text_config import decoder_spec, resolved_config, text_config

if TYPE_CHECKING:
    import torch

    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

PICTURE = "(<image>./</image>)"
"""What the publisher's ``chat`` writes for a picture before its processor puts the slices there."""
_MARKS = ("im_start", "im_end", "slice_start", "slice_end", "unk", "im_id_start", "im_id_end")
DEFAULTS: dict[str, Any] = {
    "max_slice_nums": 9,
    "scale_resolution": 448,
    "patch_size": 14,
    "use_image_id": False,
    "image_feature_size": 64,
    "im_start": "<image>",
    "im_end": "</image>",
    "slice_start": "<slice>",
    "slice_end": "</slice>",
    "unk": "<unk>",
    "im_id_start": "<image_id>",
    "im_id_end": "</image_id>",
    "slice_mode": True,
    "norm_mean": [0.5, 0.5, 0.5],
    "norm_std": [0.5, 0.5, 0.5],
}
"""What the publisher's class uses where preprocessor_config.json says nothing."""
_CLASSES = {"MiniCPMVImageProcessor": DEFAULTS}
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_SCALES = ("scale_emb", "scale_depth", "dim_model_base")


def _settings(checkpoint: Checkpoint) -> ImageSettings:
    settings = image_settings(checkpoint, _CLASSES)
    settings.require("slice_mode", "pictures would keep their size, which need not be whole patches")
    for name in _MARKS:
        if not isinstance(settings.values[name], str) or not settings.values[name]:
            raise settings.fault(name, f"is {json.dumps(settings.values[name])}, expected a text")
    vision, queries = _config(checkpoint).vision_config, _config(checkpoint).query_num
    for field, expected in (("patch_size", vision.patch_size), ("image_feature_size", queries)):
        if settings.number(field) != expected:
            raise settings.fault(field, f"is {settings.values[field]!r}, but the model has {expected!r}")
    return settings


def image_spec(checkpoint: Checkpoint) -> ImageSpec:
    """Read preprocessor_config.json."""
    settings = _settings(checkpoint)
    mean, std = _triple(settings, "norm_mean"), _triple(settings, "norm_std")
    if not min(std) > 0:
        raise settings.fault("norm_std", f"is {json.dumps(settings.values['norm_std'])}, expected numbers above 0")
    patch = settings.number("patch_size")
    return ImageSpec(
        tiler=AdaptiveSlices(
            tile=settings.number("scale_resolution", least=patch),
            patch=patch,
            max_slices=settings.number("max_slice_nums"),
        ),
        resample="bicubic",
        rescale=1 / 255,
        mean=mean,
        std=std,
    )


def _triple(settings: ImageSettings, field: str) -> tuple[float, float, float]:
    values = settings.values[field]
    numbers = isinstance(values, list) and len(values) == 3 and all(type(each) in (int, float) for each in values)
    if not numbers or not all(math.isfinite(each) for each in values):
        raise settings.fault(field, f"is {json.dumps(values)}, expected three numbers")
    return float(values[0]), float(values[1]), float(values[2])


def _config(checkpoint: Checkpoint) -> Any:
    from edge_mllm_export.families.minicpm_v.config import LANGUAGE_MODELS, MiniCPMVConfig, version_of

    file = checkpoint.path / "config.json"
    version = version_of(checkpoint.field("version", None))
    if version not in LANGUAGE_MODELS:
        known = ", ".join(LANGUAGE_MODELS)
        raise CheckpointError(file, "version", f"is {checkpoint.config.get('version')!r}, known here: {known}")
    for name in _SIZES:
        checkpoint.integer(name)
    for name in _SCALES:
        if checkpoint.config.get(name, 1) not in (1, None):
            reason = f"is {checkpoint.config[name]!r}, but released weights of this kind have such factors in them"
            raise CheckpointError(file, name, reason)
    for name in ("tie_word_embeddings", "drop_vision_last_layer"):
        if checkpoint.config.get(name):
            raise CheckpointError(file, name, "is true, which no released model of this kind has")
    config = resolved_config(checkpoint, MiniCPMVConfig)
    _check_sizes(checkpoint, config)
    return config


def _check_sizes(checkpoint: Checkpoint, config: Any) -> None:
    """Sizes that tower and resampler must have."""
    from edge_mllm_export.families.minicpm_v.config import HEAD

    file, vision = checkpoint.path / "config.json", config.vision_config
    checkpoint.integer("query_num", 64)
    if config.text_config.hidden_size % HEAD:
        reason = f"is {config.text_config.hidden_size}, no multiple of {HEAD}, the width of the resampler's heads"
        raise CheckpointError(file, "hidden_size", reason)
    for name in ("image_size", "patch_size"):
        if not isinstance(getattr(vision, name), int):
            raise CheckpointError(file, f"vision_config.{name}", f"is {getattr(vision, name)!r}, expected one number")
    if not 0 < vision.patch_size <= vision.image_size:
        reason = f"is {vision.patch_size}, with image_size {vision.image_size}: there is no patch"
        raise CheckpointError(file, "vision_config.patch_size", reason)


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """As many rows for every slice as there are queries."""
    settings = _settings(checkpoint)
    side = settings.number("scale_resolution")
    return VisionSpec(
        tokens_per_tile=settings.number("image_feature_size"),
        tile_height=side,
        tile_width=side,
        patches=PatchInput(patch=settings.number("patch_size"), merge=1, pooled=True),
    )


def prompt_spec(checkpoint: Checkpoint) -> PromptSpec:
    """Token ids and the marks around pictures and slices."""
    given = _settings(checkpoint).values
    used = _MARKS if given["use_image_id"] else _MARKS[:5]
    ids = {name: checkpoint.token_id(given[name]) for name in used}
    size = checkpoint.integer("vocab_size")
    for name, number in ids.items():
        if number >= size:
            reason = f"is {size}, but the tokenizer's {given[name]} has the id {number}"
            raise CheckpointError(checkpoint.path / "config.json", "vocab_size", reason)
    before = given["im_id_start"] + "{picture}" + given["im_id_end"] if given["use_image_id"] else ""
    return PromptSpec(
        image_token=given["unk"],
        image_token_id=ids["unk"],
        placeholder=PICTURE,
        layout=TileLayout(
            before_image=before,
            before_tile=given["slice_start"],
            after_tile=given["slice_end"],
            between_rows="\n",
            before_global=given["im_start"],
            after_global=given["im_end"],
            before_single=given["im_start"],
            after_single=given["im_end"],
        ),
        stop_token_ids=stop_tokens(checkpoint, "<|im_end|>", "</s>", "<|endoftext|>"),
        special_tokens=special_tokens(checkpoint),
    )


def _decoder(checkpoint: Checkpoint) -> DecoderSpec:
    return decoder_spec(checkpoint, _config)


def tower_shapes(checkpoint: Checkpoint) -> Shapes:
    """Every tensor of tower and resampler."""
    from edge_mllm_export.families.minicpm_v import tower

    return tower.tower_shapes(_config(checkpoint))


def stored_tower(checkpoint: Checkpoint, shapes: Shapes) -> Shapes:
    """Those, with the queries computed and the constants of positions."""
    from edge_mllm_export.families.minicpm_v import tower

    return tower.stored_shapes(_config(checkpoint), shapes)


def build_tower(checkpoint: Checkpoint) -> torch.nn.Module:
    """Tower and resampler with the checkpoint's weights, float32; nothing of the language model is loaded."""
    from edge_mllm_export.families.minicpm_v.tower import load_tower

    return load_tower(checkpoint, _config(checkpoint))


def model_class() -> Any:
    """The reference, which transformers does not have."""
    from edge_mllm_export.families.minicpm_v.model import MiniCPMVForCausalLM

    return MiniCPMVForCausalLM


VARIABLES = {"enable_thinking": False}
"""``chat`` of 4.5 sets it so unless a user asks for it."""


def reference_processor(checkpoint: Checkpoint) -> Any:
    """The publisher's slices and text."""
    from edge_mllm_export.families.minicpm_v.processor import MiniCPMVProcessor

    return MiniCPMVProcessor(checkpoint.path, checkpoint.chat_template, VARIABLES, _settings(checkpoint).values)


FAMILY = Family(
    name="minicpm_v",
    architectures=("MiniCPMV",),
    image=image_spec,
    vision=vision_spec,
    prompt=prompt_spec,
    decoder=_decoder,
    config=_config,
    text_config=partial(text_config, config=_config),
    text_tensors={"llm.model.": "model.", "llm.lm_head.": "lm_head."},
    tower_shapes=tower_shapes,
    stored_tower=stored_tower,
    build_tower=build_tower,
    reference_processor=reference_processor,
    picture=PICTURE,
    template_variables=VARIABLES,
    model_class=model_class,
    mmproj=resampler(_config, image_spec),
    checkpoints=("openbmb/MiniCPM-V-4", "openbmb/MiniCPM-V-2_6", "openbmb/MiniCPM-V-4_5"),
    licence="Apache-2.0",
)
