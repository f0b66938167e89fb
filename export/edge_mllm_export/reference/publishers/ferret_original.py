"""The preprocessing of apple/ml-ferret, folder ferretui: ``process_anyres_image`` and its conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_mllm_export.families.ferret_ui.processor import screen_tiles
from edge_mllm_export.families.tiles_processor import TilesProcessor
from edge_mllm_export.reference.publishers.conversation import IMAGE, turns
from edge_mllm_export.reference.publishers.tokenizers import original_tokenizer

_SYSTEM = (
    "A chat between a human and an AI that understands visuals. "
    "In images, [x, y] denotes points: top-left [0, 0], bottom-right [width-1, height-1]. "
    "Increasing x moves right; y moves down. Bounding box: [x1, y1, x2, y2]. Image size: 1000x1000. "
    "Follow instructions."
)


def ferret_original_processor(
    origin: Path,
    config: Mapping[str, Any],
    *,
    settings: Mapping[str, Any],
    side: int,
    tokens: int,
    image_token_id: int,
) -> TilesProcessor:
    """Screens and text as its command line makes them.

    Args:
        origin: The directory as it was published.
        config: Its config.json.
        settings: All of CLIP's processor, which the directory lacks.
        side: Of a tile, in pixels.
        tokens: Visual tokens of a tile.
        image_token_id: What stands for a visual token; these models have none.
    """
    write = _gemma if config["model_type"] == "ferret_gemma" else _llama
    return TilesProcessor(
        tokenizer=original_tokenizer(origin),
        write=write,
        tiles=screen_tiles(settings, side),
        tokens=tokens,
        mark=IMAGE,
        reserved=("<region_fea>",),
        image_token_id=image_token_id,
        written_from="apple/ml-ferret, ferretui",
        with_sizes=True,
    )


def _gemma(messages: Sequence[Mapping[str, Any]], generate: bool) -> str:
    system, said = turns(messages)
    text = _SYSTEM if system is None else system
    for role, words in said:
        name, behind = ("user", "") if role == "user" else ("model", "<eos>")
        text += f"<start_of_turn>{name}\n{words}<end_of_turn>\n{behind}"
    return text + ("<start_of_turn>model\n" if generate else "")


def _llama(messages: Sequence[Mapping[str, Any]], generate: bool) -> str:
    system, said = turns(messages)
    turn = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>"
    written = [("system", _SYSTEM if system is None else system), *said]
    text = "<|begin_of_text|>" + "".join(turn.format(role, words) for role, words in written)
    return text + ("<|start_header_id|>assistant<|end_header_id|>\n\n" if generate else "")
