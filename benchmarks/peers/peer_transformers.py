"""transformers on torch: the variant is ``bf16``, or ``int8`` for torch's dynamic quantisation of linear layers."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import torch
from protocol import Job, Question, Reply, serve
from token_clock import VisionClock, ask


class Transformers:
    """A loaded checkpoint."""

    def __init__(self, job: Job) -> None:
        from transformers import AutoModelForImageTextToText

        torch.set_num_threads(job.threads)
        dtype = torch.bfloat16 if job.variant == "bf16" else torch.float32
        model = AutoModelForImageTextToText.from_pretrained(job.checkpoint, dtype=dtype).eval()
        if job.variant == "int8":
            model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
        self.model, self.processor, self.checkpoint = model, _processor(job.checkpoint), job.checkpoint
        self.vision = VisionClock(model.model, "get_image_features")
        self.files = [str(path) for path in Path(job.checkpoint).glob("*.safetensors")]
        versions = {name: metadata.version(name) for name in ("torch", "transformers")}
        note = "the bf16 checkpoint is read and quantised at every start" if job.variant == "int8" else ""
        self.about = {"versions": versions, "precision": {"model": job.variant}, "note": note}

    def answer(self, question: Question) -> Reply:
        """Answer a question about a new picture."""
        with torch.inference_mode():
            return ask(self.model, self.processor, self.vision, question, self.checkpoint)

    def again(self, question: Question) -> Reply:
        """generate() keeps nothing of the last picture: everything is computed again."""
        return self.answer(question)


def _processor(checkpoint: str) -> object:
    """The model's own processor, with the image processor that needs no torchvision."""
    from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
    from edge_mllm_export.families.registry import find_family
    from edge_mllm_export.reference.processor import DirectoryProcessor, load_processor

    opened = open_checkpoint(Path(checkpoint))
    loaded = load_processor(opened, find_family(opened))
    if not isinstance(loaded, DirectoryProcessor):
        raise TypeError(f"transformers has no processor for {checkpoint}")
    return loaded.processor


if __name__ == "__main__":
    serve(Transformers, lambda _: None)
