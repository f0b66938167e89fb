"""transformers' processor for still pictures, without the video part that needs torchvision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AutoImageProcessor, AutoTokenizer, LlavaOnevisionProcessor
from transformers.processing_utils import ProcessorMixin

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint import Checkpoint


class StillProcessor(LlavaOnevisionProcessor):  # type: ignore[misc]  # transformers is not typed here
    """LlavaOnevisionProcessor as it is, apart from its constructor, which asks for a video processor.

    The pictures of a call belong to one conversation; they are handed on together, as ``apply_chat_template`` does it.
    A flat list would stand for several conversations of one picture each.
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    def __call__(self, images: Any = None, text: Any = None, **settings: Any) -> Any:
        """Pictures and text of one conversation."""
        return super().__call__(images=None if images is None else [list(images)], text=text, **settings)


def make_processor(checkpoint: Checkpoint, *, tokens: int, strategy: str, image_token: str) -> StillProcessor:
    """Build the processor from its parts, with the PIL image processor.

    Args:
        checkpoint: Its directory holds the settings.
        tokens: Visual tokens per tile.
        strategy: Which of the tower's tokens are used.
        image_token: The token that stands for a visual token.
    """
    processor = StillProcessor(
        AutoImageProcessor.from_pretrained(checkpoint.path, backend="pil"),
        AutoTokenizer.from_pretrained(checkpoint.path),
        chat_template=checkpoint.chat_template,
    )
    processor.num_image_tokens = tokens
    processor.vision_feature_select_strategy = strategy
    processor.vision_aspect_ratio = checkpoint.processor_settings.get("vision_aspect_ratio", "anyres_max_9")
    processor.image_token = image_token
    processor.image_token_id = processor.tokenizer.convert_tokens_to_ids(image_token)
    processor.video_token = "<video>"  # noqa: S105  (no secret)
    processor.video_token_id = processor.tokenizer.convert_tokens_to_ids(processor.video_token)
    return processor
