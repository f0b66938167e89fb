"""Which engine runs a bundle's decoder, and the decoder itself."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import platform
from dataclasses import replace
from pathlib import Path

from edge_mllm.bundle.files import OpenBundle
from edge_mllm.bundle.spec import Engine
from edge_mllm.decoders.lazy import LazyDecoder
from edge_mllm.decoders.protocol import Decoder
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.errors import EngineError, ExtraMissingError

_log = logging.getLogger(__name__)
_NEEDS: dict[Engine, tuple[str, str, str]] = {
    "onnx": ("onnxruntime", "onnxruntime", "onnx"),
    "gguf": ("llama_cpp", "llama-cpp-python", "gguf"),
}
"""Module, distribution and extra that an engine needs."""


def choose_engine(bundle: OpenBundle, wanted: str | None = None) -> Engine:
    """The engine to use: the wanted one, else the bundle's first whose library is installed.

    Raises:
        EngineError: The bundle has no decoder for the wanted engine, or there is no such engine.
        ExtraMissingError: No usable engine is installed.
    """
    offered = bundle.spec.engines
    if wanted is not None:
        for engine in offered:
            if engine == wanted:
                return engine
        known = " and ".join(_NEEDS)
        reason = f"'{bundle.spec.name}' has {' and '.join(offered)}" if wanted in _NEEDS else f"there are {known}"
        raise EngineError(f"no engine '{wanted}' here: {reason}")
    for engine in offered:
        if importlib.util.find_spec(_NEEDS[engine][0]) is not None:
            return engine
        _log.info("engine %s is skipped: %s is not installed", engine, _NEEDS[engine][1])
    _, distribution, extra = _NEEDS[offered[0]]
    raise ExtraMissingError(extra, distribution)


def cache_binding(bundle: Path, engine: Engine, settings: DecoderSettings) -> dict[str, str]:
    """What a decoder's cache, bit for bit, belongs to.

    Args:
        bundle: The directory; its bundle.json holds the hashes of all parts.
        engine: Which decoder.
        settings: Of the decoder.
    """
    return engine_binding(hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest(), engine, settings)


def engine_binding(model: str, engine: Engine, settings: DecoderSettings) -> dict[str, str]:
    """The same for a model that is known by the hash of its files."""
    # Only where they are not used: chats of models without prompt weights were saved before there were any.
    unused = {"prompt weights": "off"} if settings.prompt_weights == "off" else {}
    return {
        "bundle": model,
        "engine": engine,
        "engine version": importlib.metadata.version(_NEEDS[engine][1]),
        "kv_type": str(settings.kv_type),
        "flash attention": str(settings.flash_attention),
        "chunk": str(settings.chunk),
        "machine": platform.machine(),
        **unused,
    }


def open_decoder(bundle: OpenBundle, engine: Engine, settings: DecoderSettings, *, lazy: bool = False) -> Decoder:
    """Load the decoder of a bundle; with ``lazy``, when it is first used, and prompt weights for each prompt anew.

    Raises:
        EngineError: The engine cannot load it.
        ExtraMissingError: The engine's library is not installed.
        PartMismatchError: The file and bundle.json do not belong together.
    """
    if lazy:
        if settings.prompt_weights == "keep":
            settings = replace(settings, prompt_weights="free")
        return LazyDecoder(lambda: open_decoder(bundle, engine, settings), bundle.spec.decoder, settings.n_ctx)
    if engine == "onnx":
        from edge_mllm.decoders.ort.decoder import OrtDecoder

        graph, table = bundle.file("decoder_onnx"), bundle.file("embeddings")
        used = "prompt_onnx" in bundle.spec.parts and settings.prompt_weights != "off"
        prompt = bundle.file("prompt_onnx") if used else None
        return OrtDecoder(graph, table, bundle.spec.decoder, settings, prompt=prompt)
    from edge_mllm.decoders.llama.decoder import LlamaDecoder

    return LlamaDecoder(bundle.file("decoder_gguf"), bundle.spec.decoder, settings)
