"""Answers and embeddings of the Python runtime, for questions that come as JSON on standard input.

It runs in a process of its own, with the ONNX Runtime that core has: between versions int8 towers differ.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import edge_mllm
from edge_mllm.answer.decoding.sampling import SamplingOptions

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")


def answered(model: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """The document of one answer with its pieces, and a hash of each picture's embeddings."""
    options = {name: asked[name] for name in ("system", "detail", "max_image_tokens", "stop") if name in asked}
    sampling = SamplingOptions(**{name: asked[name] for name in _SAMPLING if name in asked})
    pieces, answer = [], None
    for piece in model.stream(
        asked["prompt"], asked["images"], max_new_tokens=asked.get("max_new_tokens", 256), sampling=sampling, **options
    ):
        pieces.append(piece.text)
        answer = piece.answer
    assert answer is not None
    hashes = [hashlib.sha256(model.encode(image).tobytes()).hexdigest() for image in asked["images"]]
    return answer.to_dict() | {"pieces": pieces, "embeddings": hashes}


def main() -> None:
    """Answer everything."""
    import onnxruntime

    given = json.load(sys.stdin)
    models: dict[str, Any] = {}
    out = []
    for asked in given:
        path = asked["bundle"]
        if path not in models:
            models[path] = edge_mllm.load(path, engine="onnx", threads=1)
        out.append(answered(models[path], asked))
    json.dump({"onnxruntime": onnxruntime.__version__, "answers": out}, sys.stdout)


if __name__ == "__main__":
    main()
