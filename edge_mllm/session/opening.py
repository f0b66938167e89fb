"""What is asked of a model before it is opened: the options of loading, by name and as one checked value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from edge_mllm.answer.turns import WhenBusy
from edge_mllm.decoders.settings import DecoderSettings, KVType
from edge_mllm.machine.threads import default_threads
from edge_mllm.session.files import Place
from edge_mllm.tower.cache import DEFAULT_BYTES, VisionCache
from edge_mllm.tower.engines import TowerEngine
from edge_mllm.tower.placement import Provider, read_provider
from edge_mllm.tower.store import EmbeddingStore


class LoadOptions(TypedDict, total=False):
    """The options of :func:`edge_mllm.load`."""

    engine: str | None
    """``onnx`` or ``gguf``; None takes the bundle's first whose library is installed."""
    threads: int | None
    """Threads of tower and decoder; None takes the fast physical cores this process may use."""
    n_ctx: int | None
    """Most tokens of prompt and answer together; None is the model's own limit. Memory grows as needed."""
    kv_type: KVType | None
    """Precision of the decoder's cache: ``f32``, ``f16`` or ``q8_0``; None is the engine's default."""
    flash_attention: bool | None
    """Only for ``gguf``; None lets llama.cpp choose."""
    check_hashes: bool
    """Compare every file that the engine uses with its SHA-256 in bundle.json (default)."""
    cache_dir: str | Path | None
    """Where visual embeddings are also kept on disk, for later processes; None keeps them in memory only."""
    cache_bytes: int
    """Most bytes of visual embeddings in memory; 0 keeps none."""
    low_memory: bool
    """Free the tower after every answer's pictures, and load the decoder after the first ones."""
    precision: str | None
    """Files of a published directory, see :func:`edge_mllm.bundle.published.files.choose_files`."""
    mmproj: str | Path | None
    """The vision tower that goes with a GGUF file; without it the file answers about text alone."""
    chunk: int | None
    """Prompt tokens computed at once; None is 512. 4-bit kernels give slightly different logits for others."""
    provider: str | None
    """What runs a bundle's tower: ``auto`` (default), ``cpu``, ``qnn``, ``qnn:v75``, ``openvino``; see
    :mod:`edge_mllm.tower.placement`."""
    vision_engine: TowerEngine | None
    """The library that runs a bundle's tower on the CPU, see :mod:`edge_mllm.tower.engines`: ``ort`` is
    ``provider='cpu'``, the others are the providers of their names."""
    tile_batch: int
    """Tiles that a bundle's tower takes at once (1), see :class:`edge_mllm.tower.tower.VisionTower`."""
    max_memory: int | None
    """Refuse a bundle whose decoder alone has more bytes, before loading it; see :class:`edge_mllm.GenerateOptions`."""
    prompt_weights: bool
    """Compute long prompts with a bundle's prompt weights, where it has them (engine ``onnx``; default)."""
    when_busy: WhenBusy
    """While another thread's answer is made, ``wait`` for its end (default) or ``raise`` a BusyError."""
    layout: str | None
    """What of a repository of the hub: ``bundle``, ``gguf`` or ``onnx``; None takes the first that runs here."""
    quant: str | None
    """Which GGUF file of a repository, as ``Q8_0``; None takes one of 4 bits."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How to open a model."""

    path: Path
    settings: DecoderSettings
    cache: VisionCache
    engine: str | None = None
    check_hashes: bool = True
    low_memory: bool = False
    precision: str | None = None
    """Which files of a published directory."""
    mmproj: Path | None = None
    """The tower that goes with a GGUF file."""
    provider: Provider = field(default_factory=Provider)
    """What runs a bundle's tower."""
    tile_batch: int = 1
    """Tiles of a picture that a bundle's tower takes at once."""
    max_memory: int | None = None
    """Refuse, before it is loaded, a bundle's decoder that has more bytes by itself."""


def opening_of(place: Place, options: LoadOptions) -> Opening:
    """How to open a model that was found.

    Raises:
        SettingError: A value is outside its range or of another type.
    """
    threads, chunk = options.get("threads"), options.get("chunk")
    cache_dir, mmproj = options.get("cache_dir"), options.get("mmproj")
    settings = DecoderSettings(
        threads=default_threads() if threads is None else threads,
        n_ctx=options.get("n_ctx"),
        kv_type=options.get("kv_type"),
        flash_attention=options.get("flash_attention"),
        chunk=DecoderSettings.chunk if chunk is None else chunk,
        prompt_weights="keep" if options.get("prompt_weights", True) else "off",
    )
    store = None if cache_dir is None else EmbeddingStore(Path(cache_dir))
    return Opening(
        path=place.path,
        settings=settings,
        cache=VisionCache(max_bytes=options.get("cache_bytes", DEFAULT_BYTES), store=store),
        engine=options.get("engine"),
        check_hashes=options.get("check_hashes", True),
        low_memory=options.get("low_memory", False),
        precision=options.get("precision"),
        mmproj=place.mmproj if mmproj is None else Path(mmproj),
        provider=read_provider(options.get("provider"), options.get("vision_engine")),
        tile_batch=options.get("tile_batch", 1),
        max_memory=options.get("max_memory"),
    )
