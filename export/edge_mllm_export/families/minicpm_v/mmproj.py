"""MiniCPM-V's towers as ``mmproj.gguf``, for both of llama.cpp's projectors of that line.

``resampler`` is that of 2.6, 4.0 and 4.5. llama.cpp converts it with a script of its own
(tools/mtmd/legacy-models/minicpmv-convert-image-encoder-to-gguf.py, at llama-cpp-python 0.3.36), whose names, types
and keys are kept, also where they are odd: the two layers of an MLP have each other's names, and libmtmd swaps them
back. ``minicpmv4_6`` is 4.6's and known to convert_hf_to_gguf.py.

libmtmd has numbers of these models in its code, which no key of the file changes: 70 rows and columns of the table of
positions, and nine slices. Checkpoints with others are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm.bundle.tilers import AdaptiveSlices
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.family import MmprojSpec, TensorNames, siglip_tensors, transformer_keys
from edge_mllm_export.gguf.file import GgufTensor

if TYPE_CHECKING:
    import numpy.typing as npt

    from edge_mllm.bundle.spec import ImageSpec
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

SIDE = 70
"""Rows and columns of the table of positions."""
SLICES = 9
"""The most slices of one picture."""
EPSILON = 1e-6
"""Of all norms of a file: the resampler's, which is fixed, and the tower's."""
ACTIVATION = "gelu_pytorch_tanh"
NUMBERS = {"2.6": 3, "4.0": 5, "4.5": 6}
"""``version`` of a checkpoint -> llama.cpp's number of it (docs/multimodal/minicpmv*.md there)."""
_VISION = "vision_config"
Config = Callable[["Checkpoint"], Any]
Image = Callable[["Checkpoint"], "ImageSpec"]


def _checked(vision: Any, image: ImageSpec) -> AdaptiveSlices:
    """How pictures are cut.

    Args:
        vision: The tower's configuration.
        image: Of the checkpoint.

    Raises:
        CheckpointError: The table of positions has another size, the activation is another, or pictures are cut into
            another number of slices.
    """
    side, tiler = vision.image_size // vision.patch_size, image.tiler
    if side != SIDE:
        reason = f"makes a table of {side} rows of positions, but libmtmd, which reads `mmproj`, has {SIDE}"
        raise CheckpointError("config.json", f"{_VISION}.image_size", reason)
    if vision.hidden_act != ACTIVATION:
        reason = f"is {vision.hidden_act!r}, but `mmproj` can only have {ACTIVATION}"
        raise CheckpointError("config.json", f"{_VISION}.hidden_act", reason)
    if not isinstance(tiler, AdaptiveSlices) or tiler.max_slices != SLICES:
        reason = f"is not {SLICES} (or slices are switched off), but libmtmd, which reads `mmproj`, cuts that many"
        raise CheckpointError("preprocessor_config.json", "max_slice_nums", reason)
    return tiler


def resampler(config: Config, image: Image) -> MmprojSpec:
    """That of 2.6, 4.0 and 4.5.

    Args:
        config: Reads a checkpoint's configuration.
        image: Reads how its pictures are cut.
    """
    return MmprojSpec(
        projector_type="resampler",
        keys=partial(_resampler_keys, config, image),
        tensors=_resampler_tensors(),
        halved=("vpm.embeddings.patch_embedding.weight",),
        f16_embeddings=("vpm.embeddings.position_embedding.weight",),
        transposed=(_PROJECTION,),
        computed=partial(_key_positions, config),
    )


def _resampler_keys(read: Config, cut: Image, checkpoint: Checkpoint) -> dict[str, Any]:
    config, image = read(checkpoint), cut(checkpoint)
    vision, width = config.vision_config, config.text_config.hidden_size
    tiler = _checked(vision, image)
    if vision.layer_norm_eps != EPSILON:
        reason = f"is {vision.layer_norm_eps}, but `mmproj` has one number for tower and resampler, {EPSILON}"
        raise CheckpointError("config.json", f"{_VISION}.layer_norm_eps", reason)
    if vision.hidden_size == width:
        reason = f"is {width}, as the language model's, so there is no resampler.kv_proj, which libmtmd needs"
        raise CheckpointError("config.json", f"{_VISION}.hidden_size", reason)
    return transformer_keys(config, image, side=tiler.tile, patch=vision.patch_size) | {
        "clip.vision.projection_dim": 0,  # the script writes that, and libmtmd takes the width of the resampler's rows
        "clip.has_text_encoder": False,
        "clip.has_minicpmv_projector": True,
        "clip.minicpmv_version": np.int32(NUMBERS[config.version]),
        "clip.minicpmv_query_num": config.query_num,
        "clip.use_gelu": True,
    }


def _resampler_tensors() -> dict[str, str | tuple[str, ...]]:
    swapped = {"ffn_up": "ffn_down", "ffn_down": "ffn_up"}
    tower = {
        source: ".".join(swapped.get(part, part) for part in target.split("."))
        for source, target in siglip_tensors("vpm.").items()
    }
    norms = {f"resampler.{norm}.{kind}": f"resampler.{norm}.{kind}" for norm in _NORMS for kind in ("weight", "bias")}
    parts = {
        f"resampler.attn.in_proj_{kind}": tuple(f"resampler.attn.{part}.{kind}" for part in "qkv")
        for kind in ("weight", "bias")
    }
    return tower | norms | parts | _MATRICES


_NORMS = ("ln_q", "ln_kv", "ln_post")
_PROJECTION = "resampler.proj"
_MATRICES: dict[str, str | tuple[str, ...]] = {
    "resampler.query": "resampler.query",
    "resampler.kv_proj.weight": "resampler.kv.weight",
    "resampler.attn.out_proj.weight": "resampler.attn.out.weight",
    "resampler.attn.out_proj.bias": "resampler.attn.out.bias",
    _PROJECTION: "resampler.proj.weight",
}


def _key_positions(config: Config, checkpoint: Checkpoint) -> tuple[GgufTensor, ...]:
    """Of the largest grid. libmtmd reckons them itself, but does not load a file without them."""
    width = config(checkpoint).text_config.hidden_size
    return (GgufTensor("resampler.pos_embed_k", (SIDE * SIDE, width), "F32", partial(_load_positions, width)),)


def _load_positions(width: int) -> npt.NDArray[np.float32]:
    from edge_mllm_export.families.minicpm_v.model import key_positions

    return key_positions(width, (SIDE, SIDE))


def merger(config: Config, image: Image) -> MmprojSpec:
    """That of 4.6.

    Args:
        config: Reads a checkpoint's configuration.
        image: Reads how its pictures are cut.
    """
    return MmprojSpec(
        projector_type="minicpmv4_6",
        keys=partial(_merger_keys, config, image),
        tensors=partial(_merger_tensors, config),
        f16_embeddings=(f"{_TOWER}embeddings.patch_embedding.weight",),
    )


def _merger_keys(read: Config, cut: Image, checkpoint: Checkpoint) -> dict[str, Any]:
    config, image = read(checkpoint), cut(checkpoint)
    tiler = _checked(config.vision_config, image)
    return transformer_keys(config, image, side=tiler.tile, patch=config.vision_config.patch_size) | {
        "clip.vision.projector.scale_factor": tiler.merge,
        "clip.vision.wa_layer_indexes": [config.insert_layer_id],
        "clip.use_gelu": True,
    }


def _merger_tensors(config: Config, checkpoint: Checkpoint) -> TensorNames:
    """With 4x, those that make four patches one between two layers are left out."""
    both = ("weight", "bias")
    found = siglip_tensors(_TOWER) | {
        f"model.merger.mlp.0.{source}.{kind}": f"mm.{target}.{kind}"
        for source, target in _MERGER.items()
        for kind in both
    }
    if config(checkpoint).downsample_mode == "16x":
        found |= {
            f"{_TOWER}vit_merger.{source}.{kind}": f"v.vit_merger.{target}.{kind}"
            for source, target in _MIDDLE.items()
            for kind in both
        }
    return found


_TOWER = "model.vision_tower."
_MERGER = {"pre_norm": "input_norm", "linear_1": "up", "linear_2": "down"}
_MIDDLE = {
    "layer_norm1": "ln1",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "pre_norm": "ds_ln",
    "linear_1": "ds_ffn_up",
    "linear_2": "ds_ffn_down",
}
