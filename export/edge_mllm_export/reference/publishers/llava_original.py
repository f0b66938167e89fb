"""The preprocessing of Bunny and of TinyLLaVA Factory (both Apache-2.0): SigLIP's own, behind a padded square."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm_export.families.tiles_processor import TilesProcessor
from edge_mllm_export.reference.publishers.conversation import IMAGE, turns
from edge_mllm_export.reference.publishers.tokenizers import original_tokenizer

if TYPE_CHECKING:
    from PIL.Image import Image

    from edge_mllm.arrays import FloatArray

_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_END = "<|endoftext|>"


def llava_original_processor(
    origin: Path, config: Mapping[str, Any], *, side: int, tokens: int, image_token_id: int
) -> TilesProcessor:
    """Pictures and text as the repositories' command lines make them.

    Args:
        origin: The directory as it was published.
        config: Its config.json.
        side: Of the tower's pictures, in pixels.
        tokens: Visual tokens of a picture.
        image_token_id: What stands for a visual token; these models have none.
    """
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    tiny, padded = config["model_type"] == "tinyllava", config.get("image_aspect_ratio") == "pad"
    siglip = SiglipImageProcessorPil(size={"height": side, "width": side}, resample=3)

    def tiles(picture: Image) -> FloatArray:
        shown = _expand_to_square(picture) if padded else picture
        found: FloatArray = siglip(shown, return_tensors="np")["pixel_values"]
        return found

    def write(messages: Sequence[Mapping[str, Any]], generate: bool) -> str:
        system, said = turns(messages)
        text = f"{_SYSTEM if system is None else system} "
        for role, words in said:
            if role == "user":
                text += f"USER: {_trimmed(words) if tiny else words} "
            else:
                text += f"ASSISTANT: {words}{_END}"
        return text + ("ASSISTANT:" if generate else "")

    return TilesProcessor(
        tokenizer=original_tokenizer(origin),
        write=write,
        tiles=tiles,
        tokens=tokens,
        mark=IMAGE,
        image_token_id=image_token_id,
        written_from="TinyLLaVA/TinyLLaVA_Factory" if tiny else "BAAI-DCAI/Bunny",
    )


def _trimmed(words: str) -> str:
    """A question beside a picture loses the spaces around it; one without keeps them."""
    marks = words.count(f"{IMAGE}\n")
    return f"{IMAGE}\n" * marks + words.removeprefix(f"{IMAGE}\n" * marks).strip() if marks else words


def _expand_to_square(picture: Image) -> Image:
    """``expand2square`` with the colour of SigLIP's mean."""
    import PIL.Image

    side = max(picture.size)
    square = PIL.Image.new("RGB", (side, side), (127, 127, 127))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square
