"""transformers' processors for still pictures, without the video part that needs torchvision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AutoImageProcessor, AutoTokenizer
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.processing_utils import ProcessorMixin

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint import Checkpoint


class _Still:
    """The constructor of both, without the question for a video processor; all else is theirs."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)


class StillQwen2VL(_Still, Qwen2VLProcessor):  # type: ignore[misc]  # transformers is not typed here
    """Qwen2VLProcessor for pictures."""


class StillQwen25VL(_Still, Qwen2_5_VLProcessor):  # type: ignore[misc]  # transformers is not typed here
    """Qwen2_5_VLProcessor for pictures."""


_CLASSES = {"qwen2_vl": StillQwen2VL, "qwen2_5_vl": StillQwen25VL}
"""By ``model_type``."""


def make_processor(checkpoint: Checkpoint) -> Any:
    """Build the processor from its parts, with the PIL image processor."""
    return _CLASSES[checkpoint.config["model_type"]](
        AutoImageProcessor.from_pretrained(checkpoint.path, backend="pil"),
        AutoTokenizer.from_pretrained(checkpoint.path),
        chat_template=checkpoint.chat_template,
    )
