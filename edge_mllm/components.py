"""The pieces a loaded model is made of, whatever layout its files have."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge_mllm.bundle import BundleSpec, Engine
from edge_mllm.bundle_files import DECODER_PARTS, OpenBundle, open_bundle
from edge_mllm.decoders.lazy import LazyDecoder
from edge_mllm.decoders.protocol import Decoder
from edge_mllm.decoders.select import cache_binding, choose_engine, engine_binding, open_decoder
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.encoder import PictureEncoder, Tower
from edge_mllm.errors import ModelNotFoundError, SettingError
from edge_mllm.limits import megabytes
from edge_mllm.pair.files import is_gguf
from edge_mllm.published.directory import PublishedDirectory, is_published, open_directory
from edge_mllm.reader import BundleReader, Reader
from edge_mllm.tower_session import SLOW_IN_OPENVINO, TowerEngine, engine_label
from edge_mllm.vision import VisionTower
from edge_mllm.vision_cache import VisionCache, tower_digest

_log = logging.getLogger(__name__)


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
    settings: DecoderSettings
    vision_engine: TowerEngine = "ort"
    """The library that runs the tower of a bundle."""
    binding: Callable[[], dict[str, str]]
    """What the bits of the decoder's cache depend on."""


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
    vision_engine: TowerEngine = "ort"
    """The library that runs a bundle's tower."""
    tile_batch: int = 1
    """Tiles of a picture that a bundle's tower takes at once."""
    max_memory: int | None = None
    """Refuse, before it is loaded, a bundle's decoder that has more bytes by itself."""


def open_files(path: Path, *, check_hashes: bool, precision: str | None = None) -> OpenBundle:
    """Open a bundle or a published directory; nothing is loaded.

    Raises:
        ModelNotFoundError: It is neither.
        BundleError: It is damaged.
        SettingError: ``precision`` is for a published directory, or it has no such files.
    """
    if is_published(path):
        return open_directory(path, precision=precision)
    if precision is not None:
        raise SettingError(f"'{path}' is no directory of published ONNX files, so there is no precision to choose")
    if (path / "config.json").is_file() and not (path / "bundle.json").is_file():
        raise ModelNotFoundError(path, f"it is a checkpoint; type: edge-mllm export {path} -o {path.name}.edge")
    return open_bundle(path, check_hashes=check_hashes)


def open_components(opening: Opening) -> Components:
    """Load a model's pieces, whatever layout it has.

    Raises:
        ModelNotFoundError: There is no model.
        BundleError: It is damaged.
        EngineError: There is no decoder for the engine, or the engine refuses it.
        ExtraMissingError: The engine is not installed.
    """
    if opening.vision_engine != "ort" and (is_gguf(opening.path) or is_published(opening.path)):
        raise SettingError(f"--vision-engine is for bundles, and '{opening.path}' is none")
    if is_gguf(opening.path):
        from edge_mllm.pair.opening import pair_components

        if opening.precision is not None:
            raise SettingError("a GGUF file has one precision; leave --precision out")
        return pair_components(opening)
    if opening.mmproj is not None:
        raise SettingError(f"--mmproj goes with a GGUF file, and '{opening.path}' is none")
    files = open_files(opening.path, check_hashes=False, precision=opening.precision)
    engine = choose_engine(files, opening.engine)
    if isinstance(files, PublishedDirectory):
        return _published_components(files, opening)
    _check_room(files, engine, opening)
    if opening.check_hashes:
        files.check_hashes(engine)
    return bundle_components(files, engine, opening)


def _check_room(bundle: OpenBundle, engine: Engine, opening: Opening) -> None:
    """The decoder's weights alone must fit; neither the table counts, which stays on disk, nor what can be left out."""
    apart, limit = ("embeddings", "prompt_onnx", "prompt_onnx_data"), opening.max_memory
    names = [name for name in DECODER_PARTS[engine] if name not in apart and name in bundle.spec.parts]
    needed = sum(bundle.spec.parts[name].bytes for name in names)
    if limit is not None and needed > limit:
        reason = f"the decoder of '{bundle.spec.name}' alone takes {megabytes(needed)}"
        raise SettingError(f"{reason}, max_memory allows {megabytes(limit)}; allow more or take a smaller model")


def _published_components(directory: PublishedDirectory, opening: Opening) -> Components:
    from edge_mllm.decoders.merged import MergedDecoder
    from edge_mllm.published.tower import PublishedTower

    spec, settings = directory.spec, opening.settings
    file, n_embd = directory.file("vision"), spec.decoder.n_embd
    tower = PublishedTower(file, spec.vision, n_embd, settings.threads, directory.newline)
    load = partial(MergedDecoder, directory.file("decoder_onnx"), directory.file("embeddings"), spec.decoder, settings)
    return Components(
        path=directory.path,
        engine="onnx",
        spec=spec,
        reader=BundleReader(directory, "onnx"),
        tower=tower,
        encoder=PictureEncoder(tower, opening.cache, directory.tower_digest, low_memory=opening.low_memory),
        decoder=LazyDecoder(load, spec.decoder, settings.n_ctx) if opening.low_memory else load(),
        settings=settings,
        binding=lambda: engine_binding(directory.digest(), "onnx", settings),
    )


def bundle_components(bundle: OpenBundle, engine: Engine, opening: Opening) -> Components:
    """The pieces of a bundle.

    Raises:
        BundleError: Tokenizer or template cannot be read.
        EngineError: The engine refuses the decoder.
    """
    if opening.vision_engine != "ort":
        engine_label(opening.vision_engine)  # says now, and not with the first picture, that it is not installed
        if bundle.spec.parts["vision"].precision in SLOW_IN_OPENVINO:
            advice = "export with --vision int8_static or fp16"
            _log.warning("OpenVINO runs this integer tower many times slower than ONNX Runtime; %s", advice)
    spec, settings, low_memory = bundle.spec, opening.settings, opening.low_memory
    tile_batch = opening.tile_batch
    tower = VisionTower.of(bundle, threads=settings.threads, engine=opening.vision_engine, tile_batch=tile_batch)
    digest = partial(tower_digest, spec, opening.vision_engine, tile_batch)
    return Components(
        path=bundle.path,
        engine=engine,
        spec=spec,
        reader=BundleReader(bundle, engine),
        tower=tower,
        encoder=PictureEncoder(tower, opening.cache, digest, low_memory=low_memory),
        decoder=open_decoder(bundle, engine, settings, lazy=low_memory),
        settings=settings,
        vision_engine=opening.vision_engine,
        binding=partial(cache_binding, bundle.path, engine, settings),
    )
