"""The pieces a loaded model is made of, whatever layout its files have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge_mllm.bundle import BundleSpec, Engine
from edge_mllm.bundle_files import OpenBundle
from edge_mllm.decoders.protocol import Decoder
from edge_mllm.decoders.select import cache_binding, open_decoder
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.encoder import PictureEncoder, Tower
from edge_mllm.reader import BundleReader, Reader
from edge_mllm.vision import VisionTower
from edge_mllm.vision_cache import VisionCache, tower_digest


@dataclass(frozen=True, kw_only=True)
class Components:
    """One model's."""

    path: Path
    engine: Engine
    spec: BundleSpec | None
    """None for a layout that does not say how pictures are cut."""
    reader: Reader
    tower: Tower
    encoder: PictureEncoder
    decoder: Decoder
    binding: Callable[[], dict[str, str]]
    """What the bits of the decoder's cache depend on."""


def bundle_components(
    bundle: OpenBundle, engine: Engine, settings: DecoderSettings, cache: VisionCache, *, low_memory: bool
) -> Components:
    """The pieces of a bundle.

    Raises:
        BundleError: Tokenizer or template cannot be read.
        EngineError: The engine refuses the decoder.
    """
    spec = bundle.spec
    tower = VisionTower(bundle.file("vision"), spec.vision, spec.decoder.n_embd, threads=settings.threads)
    return Components(
        path=bundle.path,
        engine=engine,
        spec=spec,
        reader=BundleReader(bundle, engine),
        tower=tower,
        encoder=PictureEncoder(tower, cache, partial(tower_digest, spec), low_memory=low_memory),
        decoder=open_decoder(bundle, engine, settings, lazy=low_memory),
        binding=partial(cache_binding, bundle.path, engine, settings),
    )
