"""Bytes of the weights in a bundle's files, as ``plan`` counts them: constants, and neither graph nor names."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from edge_mllm.bundle.files import OpenBundle
from edge_mllm.bundle.gguf_header import read_tensors
from edge_mllm.bundle.spec import Engine


def stored_bytes(bundle: OpenBundle, engine: Engine, *, prompt_weights: bool) -> dict[str, int]:
    """Of ``decoder``, with its embedding table and, if wanted, its prompt weights, and of ``tower``."""
    if engine == "gguf":
        decoder = sum(tensor.bytes for tensor in read_tensors(bundle.file("decoder_gguf")))
    else:
        decoder = graph_bytes(bundle.file("decoder_onnx")) + bundle.spec.parts["embeddings"].bytes
        if prompt_weights:
            data = bundle.spec.parts["prompt_onnx_data"].file  # what the graph shares with the decoder lies elsewhere
            decoder += graph_bytes(bundle.file("prompt_onnx"), data)
    return {"decoder": decoder, "tower": graph_bytes(bundle.file("vision"))}


def graph_bytes(file: Path, only: str | None = None) -> int:
    """Bytes of a graph's constants, without integers that only say where things are.

    Weights in a file beside the graph are counted and not read; with ``only``, nothing but those in that file.
    """
    import onnx

    model = onnx.load_model(file, load_external_data=False)
    stored = model.graph.initializer
    if only is not None:
        places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in stored]
        stored = [tensor for tensor, place in zip(stored, places, strict=True) if place.get("location") == only]
    return sum(_tensor_bytes(onnx, tensor) for tensor in stored)


def _tensor_bytes(onnx: Any, tensor: Any) -> int:
    if tensor.data_type == onnx.TensorProto.INT64 or not tensor.dims:
        return 0
    return int(prod(tensor.dims)) * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
