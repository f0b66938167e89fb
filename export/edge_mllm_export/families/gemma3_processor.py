"""transformers' processor, which asks for pan-and-scan with every call or with none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AutoImageProcessor, AutoTokenizer
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint import Checkpoint


class PanningProcessor(Gemma3Processor):  # type: ignore[misc]  # transformers is not typed here
    """Gemma3Processor as a caller has it who passes ``do_pan_and_scan=True``."""

    images_kwargs = Gemma3Processor.images_kwargs | {"do_pan_and_scan": True}


def make_processor(checkpoint: Checkpoint, *, tokens: int, pan_and_scan: bool) -> Any:
    """Build the processor from its parts, with the PIL image processor."""
    return (PanningProcessor if pan_and_scan else Gemma3Processor)(
        AutoImageProcessor.from_pretrained(checkpoint.path, backend="pil"),
        AutoTokenizer.from_pretrained(checkpoint.path),
        chat_template=checkpoint.chat_template,
        image_seq_length=tokens,
    )
