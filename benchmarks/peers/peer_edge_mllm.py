"""This project itself: the variant is ``gguf``, ``onnx``, or ``onnx-prompt``, which uses a bundle's prompt weights."""

from __future__ import annotations

import time
from pathlib import Path

from protocol import Job, Question, Reply, serve

import edge_mllm
from edge_mllm.arrays import RgbArray
from edge_mllm.machine.fingerprint import package_versions
from edge_mllm.picture.image import load_rgb

_ONNX = ("decoder_onnx", "decoder_onnx_data", "embeddings", "vision")
_PARTS = {"gguf": ("decoder_gguf", "vision"), "onnx": _ONNX, "onnx-prompt": (*_ONNX, "prompt_onnx", "prompt_onnx_data")}


class EdgeMllm:
    """A loaded bundle."""

    def __init__(self, job: Job) -> None:
        engine, _, prompt = job.variant.partition("-")
        self.model = edge_mllm.load(job.bundle, engine=engine, threads=job.threads, prompt_weights=bool(prompt))
        self.model.load_tower()
        parts = self.model.spec.parts
        self.files = [str(Path(job.bundle) / parts[name].file) for name in _PARTS[job.variant] if name in parts]
        precision = {name: parts[name].precision for name in _PARTS[job.variant] if name in parts}
        self.about = {"versions": package_versions(), "precision": precision}
        self.picture: RgbArray | None = None

    def answer(self, question: Question) -> Reply:
        """Answer a question about a new picture."""
        start = time.perf_counter()
        self.picture = load_rgb(Path(str(question.picture)))
        return self._ask(question, time.perf_counter() - start)

    def again(self, question: Question) -> Reply:
        """Ask about the same picture."""
        return self._ask(question, 0.0)

    def _ask(self, question: Question, decoded_s: float) -> Reply:
        answer = self.model.generate(
            question.text, [self.picture], max_new_tokens=question.answer_tokens, ignore_eos=True
        )
        times, usage = answer.timings, answer.usage
        return Reply(
            first_token_s=decoded_s + times.ttft_s,
            prefill_s=times.prefill_s,
            decode_s=times.decode_s,
            prompt_tokens=usage.prompt_tokens,
            visual_tokens=usage.image_tokens,
            answer_tokens=usage.completion_tokens,
            vision_s=decoded_s + times.preprocess_s + times.vision_s,
            reused_tokens=usage.reused_tokens,
        )


if __name__ == "__main__":
    serve(EdgeMllm, lambda _: None)
