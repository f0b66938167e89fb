"""Directories as transformers.js' checkpoints are published, exported from tiny models with the published names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, DynamicCache

from edge_mllm.bundle.spec import ImageSpec, PatchInput
from edge_mllm.picture.patches import patch_positions, patch_windows
from edge_mllm.picture.tile_plan import plan_tiles
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.families.registry import find_family

WINDOWED_SIZE = (100, 80)
"""Width and height of the pictures that a tiny encoder with windows takes."""
CONFIGURATION = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.json",
    "chat_template.jinja",
)


class TiledEncoder(nn.Module):
    """Pixels [pictures, tiles, 3, h, w] and their mask [pictures, tiles, h, w] -> [tiles, tokens, width]."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixel_values: torch.Tensor, pixel_attention_mask: torch.Tensor) -> torch.Tensor:
        kept = pixel_values * pixel_attention_mask[:, :, None].to(pixel_values.dtype)
        return self.tower(kept.flatten(0, 1))


class PlainEncoder(nn.Module):
    """Pixels [tiles, 3, h, w] -> [tiles, tokens, width]."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.tower(pixel_values)


class PatchEncoder(nn.Module):
    """Packed patches [patches, values] and image_grid_thw [1, 3], in patches -> [tokens, width]."""

    def __init__(self, tower: nn.Module, merge: int) -> None:
        super().__init__()
        self.tower, self.merge = tower, merge

    def forward(self, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor) -> torch.Tensor:
        rows, cols, merge = image_grid_thw[0, 1], image_grid_thw[0, 2], self.merge
        row = torch.arange(rows)[:, None].expand(rows, cols)
        col = torch.arange(cols)[None, :].expand(rows, cols)
        grid = torch.stack([row, col], dim=-1).reshape(rows // merge, merge, cols // merge, merge, 2)
        return self.tower(pixel_values, grid.permute(0, 2, 1, 3, 4).reshape(-1, 2))


class WindowedEncoder(nn.Module):
    """The same with windows, for pictures of one size: what lies where is kept in the graph."""

    def __init__(self, tower: nn.Module, grid: tuple[int, int], patches: PatchInput) -> None:
        super().__init__()
        windows, places = patch_windows(grid, patches)
        self.tower, self.layout = tower, [torch.from_numpy(each) for each in (windows, places)]
        self.positions = torch.from_numpy(patch_positions(grid, patches))

    def forward(self, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor) -> torch.Tensor:
        return self.tower(pixel_values, self.positions + 0 * image_grid_thw[0, 0], *self.layout)


class MergedDecoder(nn.Module):
    """The language model with its cache as flat inputs and outputs."""

    def __init__(self, text: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.text, self.head = text, head

    def forward(
        self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, *past: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        cache = DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        cells, count = mask.shape[1], embeds.shape[1]
        seen = torch.arange(cells)[None, :] <= (torch.arange(count) + cells - count)[:, None]
        allowed = (seen[None] & mask.bool()[:, None, :])[:, None]
        bias = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)
        states = self.text(
            inputs_embeds=embeds, attention_mask=bias, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        present = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        return (self.head(states), *present)


def make_published(source: Path, out: Path) -> Path:
    """Write a published directory of a tiny checkpoint and return it."""
    (out / "onnx").mkdir(parents=True)
    for name in CONFIGURATION:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    checkpoint = open_checkpoint(source)
    model = AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32, attn_implementation="eager").eval()
    text = next(module for name, module in model.model.named_children() if name in ("text_model", "language_model"))
    if getattr(model.model, "image_newline", None) is not None:  # published beside the ONNX files, in the checkpoint
        shutil.copyfile(source / "model.safetensors", out / "model.safetensors")
    with torch.no_grad():
        _export_table(text.embed_tokens, out / "onnx" / "embed_tokens.onnx")
        _export_encoder(find_family(checkpoint), checkpoint, out / "onnx" / "vision_encoder.onnx")
        _export_decoder(MergedDecoder(text, model.lm_head), text.config, out / "onnx" / "decoder_model_merged.onnx")
    return out


def _export_table(table: nn.Module, file: Path) -> None:
    axes = {"input_ids": {0: "batch", 1: "length"}, "inputs_embeds": {0: "batch", 1: "length"}}
    ids = torch.zeros((1, 3), dtype=torch.int64)
    _export(table, (ids,), file, ["input_ids"], ["inputs_embeds"], axes)


def _export_encoder(family: Any, checkpoint: Any, file: Path) -> None:
    tower, side = family.build_tower(checkpoint), family.vision(checkpoint).tile_height
    patches = family.vision(checkpoint).patches
    if patches is not None:
        _export_patches(tower, family.image(checkpoint), patches, file)
        return
    if family.name != "idefics3":
        axes = {"pixel_values": {0: "tiles"}, "image_features": {0: "tiles"}}
        _export(PlainEncoder(tower), (torch.zeros(2, 3, side, side),), file, ["pixel_values"], ["image_features"], axes)
        return
    names = ["pixel_values", "pixel_attention_mask"]
    axes = {name: {0: "pictures", 1: "tiles"} for name in names} | {"image_features": {0: "tiles"}}
    inputs = (torch.zeros(1, 2, 3, side, side), torch.ones(1, 2, side, side, dtype=torch.bool))
    _export(TiledEncoder(tower), inputs, file, names, ["image_features"], axes)


def _export_patches(tower: nn.Module, image: ImageSpec, patches: PatchInput, file: Path) -> None:
    """Qwen2-VL's own encoders call the grid otherwise than those of its successors (transformers.js)."""
    axes = {"pixel_values": {0: "patches"}, "image_features": {0: "tokens"}}
    if patches.window is None:
        pixels, grid = torch.randn(24, patches.values), torch.tensor([[1, 4, 6]])
        names = ["pixel_values", "grid_thw"]
        _export(PatchEncoder(tower, patches.merge), (pixels, grid), file, names, ["image_features"], axes)
        return
    rows, cols = plan_tiles(*WINDOWED_SIZE, image.tiler).token_grid or (0, 0)
    merge = patches.merge
    inputs = torch.randn(rows * cols * merge**2, patches.values), torch.tensor([[1, rows * merge, cols * merge]])
    encoder = WindowedEncoder(tower, (rows, cols), patches)
    _export(encoder, inputs, file, ["pixel_values", "image_grid_thw"], ["image_features"], {})


def _export_decoder(decoder: MergedDecoder, config: AutoConfig, file: Path) -> None:
    pairs = [f"{layer}.{kind}" for layer in range(config.num_hidden_layers) for kind in ("key", "value")]
    names = ["inputs_embeds", "attention_mask", "position_ids", *(f"past_key_values.{pair}" for pair in pairs)]
    outputs = ["logits", *(f"present.{pair}" for pair in pairs)]
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    past = [torch.randn(1, config.num_key_value_heads, 5, width) for _ in pairs]
    positions = torch.arange(5, 8)[None]
    axes: dict[str, Any] = {name: {0: "batch", 1: "length"} for name in ("inputs_embeds", "position_ids", "logits")}
    if "mrope_section" in (getattr(config, "rope_parameters", None) or {}):
        positions, axes["position_ids"] = positions.expand(3, 1, 3), {1: "batch", 2: "length"}
    inputs = (torch.randn(1, 3, config.hidden_size), torch.ones(1, 8, dtype=torch.int64), positions)
    axes["attention_mask"] = {0: "batch", 1: "cells"}
    axes |= {f"past_key_values.{pair}": {0: "batch", 2: "past"} for pair in pairs}
    axes |= {f"present.{pair}": {0: "batch", 2: "cells"} for pair in pairs}
    _export(decoder, (*inputs, *past), file, names, outputs, axes)


def _export(module: nn.Module, inputs: Any, file: Path, names: list[str], outputs: list[str], axes: Any) -> None:
    torch.onnx.export(
        module,
        inputs,
        str(file),
        input_names=names,
        output_names=outputs,
        dynamic_axes=axes,
        opset_version=18,
        dynamo=False,
    )
