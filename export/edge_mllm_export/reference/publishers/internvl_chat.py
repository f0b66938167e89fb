"""InternVL's own preprocessing: ``dynamic_preprocess`` of its model cards, ``chat`` and conversation.py (MIT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm_export.families.tiles_processor import TilesProcessor
from edge_mllm_export.reference.publishers.conversation import IMAGE, turns
from edge_mllm_export.reference.publishers.tokenizers import original_tokenizer

if TYPE_CHECKING:
    from PIL.Image import Image

    from edge_mllm.arrays import FloatArray

_SYSTEM = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"  # noqa: RUF001
_OLDER_SYSTEM = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"  # noqa: RUF001
)
_OLDER = ("internlm2-chat", "Hermes-2")
"""Conversations of InternVL 2, whose turns end without a newline."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_START, _CONTEXT, _END = "<img>", "<IMG_CONTEXT>", "</img>"


def internvl_chat_processor(origin: Path, config: Mapping[str, Any], *, tagged: bool) -> TilesProcessor:
    """Pictures and text as InternVL's ``chat`` makes them.

    Args:
        origin: The directory as it was published.
        config: Its config.json.
        tagged: Write NVLM-D's tile tags, as vLLM does it.
    """
    vision = config["vision_config"]
    side = int(config.get("force_image_size") or vision["image_size"])
    tokens = int((side // vision["patch_size"]) ** 2 * config.get("downsample_ratio", 0.5) ** 2)
    most = config.get("max_dynamic_patch", 12) if config.get("dynamic_image_size", True) else 1
    least = config.get("min_dynamic_patch", 1) if config.get("dynamic_image_size", True) else 1

    def write(messages: Sequence[Mapping[str, Any]], generate: bool) -> str:
        system, said = turns(messages)
        older = config.get("template") in _OLDER
        usual, end = (_OLDER_SYSTEM, "<|im_end|>") if older else (_SYSTEM, "<|im_end|>\n")
        default = usual if config.get("system_message") is None else config["system_message"]
        text = f"<|im_start|>system\n{default if system is None else system}{end}"
        text += "".join(f"<|im_start|>{role}\n{words}{end}" for role, words in said)
        return text + ("<|im_start|>assistant\n" if generate else "")

    def visual(count: int) -> str:
        if not tagged:
            return _START + _CONTEXT * count + _END
        tags = [*(f"<tile_{number}>" for number in range(1, count // tokens)), "<tile_global_thumbnail>"]
        return "<Image>" + "".join(tag + _CONTEXT * tokens for tag in tags) + "</Image>"

    return TilesProcessor(
        tokenizer=original_tokenizer(origin),
        write=write,
        tiles=lambda picture: _normalised(dynamic_preprocess(picture, least, most, side)),
        tokens=tokens,
        mark=IMAGE,
        visual=visual,
        written_from="OpenGVLab/InternVL: dynamic_preprocess, chat, conversation.py",
    )


def dynamic_preprocess(picture: Image, least: int, most: int, side: int) -> list[Image]:
    """Tiles of ``side`` pixels on the grid whose shape is nearest, and a thumbnail behind several."""
    cols, rows = _closest(picture.width, picture.height, _grids(least, most), side)
    resized = picture.resize((side * cols, side * rows))
    corners = [(left * side, top * side) for top in range(rows) for left in range(cols)]
    tiles = [resized.crop((left, top, left + side, top + side)) for left, top in corners]
    return tiles if len(tiles) == 1 else [*tiles, picture.resize((side, side))]


def _grids(least: int, most: int) -> list[tuple[int, int]]:
    grids = {(i, j) for n in range(least, most + 1) for i in range(1, n + 1) for j in range(1, n + 1)}
    return sorted((grid for grid in grids if least <= grid[0] * grid[1] <= most), key=lambda grid: grid[0] * grid[1])


def _closest(width: int, height: int, grids: Sequence[tuple[int, int]], side: int) -> tuple[int, int]:
    best, best_difference = (1, 1), float("inf")
    for grid in grids:
        difference = abs(width / height - grid[0] / grid[1])
        if difference < best_difference:
            best, best_difference = grid, difference
        elif difference == best_difference and width * height > 0.5 * side * side * grid[0] * grid[1]:
            best = grid
    return best


def _normalised(tiles: Sequence[Image]) -> FloatArray:
    """``ToTensor`` and ``Normalize`` of torchvision."""
    values = np.stack([np.asarray(tile, np.float32) / np.float32(255) for tile in tiles])
    scaled = (values - np.asarray(_MEAN, np.float32)) / np.asarray(_STD, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)
