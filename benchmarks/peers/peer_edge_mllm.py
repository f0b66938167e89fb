"""This project itself. A variant is ``gguf`` or ``onnx``, and after plus signs what else is asked for.

``prompt``: the bundle's prompt weights. ``b64``: the bundle with blocks of 64 and a cache in 8 bits. ``openvino``: the
bundle with a second tower for OpenVINO, which runs it, in bfloat16 where it would by itself (as in its own rows).
"""

from __future__ import annotations

import time
from pathlib import Path

from protocol import Job, Question, Reply, serve

import edge_mllm
from edge_mllm.arrays import RgbArray
from edge_mllm.machine.fingerprint import package_versions
from edge_mllm.picture.image import load_rgb
from edge_mllm.tower.engines import has_bfloat16

_PARTS = {
    "gguf": ("decoder_gguf", "vision"),
    "onnx": ("decoder_onnx", "decoder_onnx_data", "embeddings", "vision"),
    "prompt": ("prompt_onnx", "prompt_onnx_data"),
    "openvino": ("vision_openvino",),
}


def other_bundle(bundle: str, word: str) -> Path:
    """Where the bundle of a variant's word lies: beside the one of all others."""
    return Path(bundle).with_name(f"model-{word}.edge")


def _openvino() -> str:
    """The provider that computes as OpenVINO does when nothing is asked of it."""
    import openvino

    return "openvino-bf16" if has_bfloat16(openvino.Core()) else "openvino"


class EdgeMllm:
    """A loaded bundle."""

    def __init__(self, job: Job) -> None:
        engine, *asked = job.variant.split("+")
        provider = _openvino() if "openvino" in asked else "cpu"
        bundle = next((other_bundle(job.bundle, word) for word in asked if word != "prompt"), Path(job.bundle))
        self.model = edge_mllm.load(
            bundle,
            engine=engine,
            threads=job.threads,
            prompt_weights="prompt" in asked,
            provider=provider,
        )
        self.model.load_tower()
        parts = self.model.spec.parts
        used = [name for each in (engine, *asked) for name in _PARTS.get(each, ()) if name in parts]
        self.files = [str(bundle / parts[name].file) for name in used]
        precision = {name: parts[name].precision for name in used}
        if "b64" in asked:
            precision["cache"] = "q8"
        if "openvino" in asked:
            precision["attention"] = "bf16" if provider == "openvino-bf16" else "f32"
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
