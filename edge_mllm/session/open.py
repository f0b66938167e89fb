"""The pieces a loaded model is made of, whatever layout its files have."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from edge_mllm.answer.components import Components
from edge_mllm.answer.limits import megabytes
from edge_mllm.answer.pictures.encoder import PictureEncoder
from edge_mllm.answer.readers.reader import BundleReader
from edge_mllm.bundle.files import DECODER_PARTS, OpenBundle
from edge_mllm.bundle.gguf_pair import is_gguf
from edge_mllm.bundle.published.directory import PublishedDirectory, is_published
from edge_mllm.bundle.spec import Engine
from edge_mllm.decoders.lazy import LazyDecoder
from edge_mllm.decoders.protocol import Decoder
from edge_mllm.decoders.select import cache_binding, choose_engine, engine_binding, open_decoder
from edge_mllm.errors import SettingError
from edge_mllm.machine.npu import NpuError
from edge_mllm.session.files import check_layout, open_files
from edge_mllm.session.opening import Opening
from edge_mllm.tower.cache import tower_digest
from edge_mllm.tower.choice import ChoosingTower
from edge_mllm.tower.engines import SLOW_IN_OPENVINO, engine_label
from edge_mllm.tower.placement import Placement, cpu_placements, fall_back, place_tower
from edge_mllm.tower.remembered import ChoiceMemory
from edge_mllm.tower.tower import VisionTower

_log = logging.getLogger(__name__)


def open_components(opening: Opening) -> Components:
    """Load a model's pieces, whatever layout it has.

    Raises:
        ModelNotFoundError: There is no model.
        BundleError: It is damaged.
        EngineError: There is no decoder for the engine, or the engine refuses it.
        ExtraMissingError: The engine is not installed.
    """
    if opening.provider.name not in ("auto", "cpu") and (is_gguf(opening.path) or is_published(opening.path)):
        raise SettingError(f"`vision_engine` and `provider` are for bundles, and '{opening.path}' is none")
    check_layout(opening.path, precision=opening.precision, mmproj=opening.mmproj)
    if is_gguf(opening.path):
        from edge_mllm.session.gguf_pair import pair_components

        return pair_components(opening)
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
    from edge_mllm.decoders.ort.merged import MergedDecoder
    from edge_mllm.tower.published import PublishedTower

    spec, settings = directory.spec, opening.settings
    file, width = directory.file("vision"), spec.decoder.row_width
    tower = PublishedTower(file, spec.vision, width, settings.threads, directory.newline)
    load = partial(MergedDecoder, directory.file("decoder_onnx"), directory.file("embeddings"), spec.decoder, settings)
    open_now = (lambda: LazyDecoder(load, spec.decoder, settings.n_ctx)) if opening.low_memory else load
    reader, decoder = _read_and_open(lambda: BundleReader(directory, "onnx"), open_now)
    return Components(
        path=directory.path,
        engine="onnx",
        spec=spec,
        reader=reader,
        tower=tower,
        encoder=PictureEncoder(tower, opening.cache, directory.tower_digest, low_memory=opening.low_memory),
        decoder=decoder,
        settings=settings,
        binding=lambda: engine_binding(directory.digest(), "onnx", settings),
    )


def bundle_components(bundle: OpenBundle, engine: Engine, opening: Opening) -> Components:
    """The pieces of a bundle.

    Raises:
        BundleError: Tokenizer or template cannot be read.
        EngineError: The engine refuses the decoder.
    """
    tower = open_placed(bundle, opening)
    if isinstance(tower, VisionTower) and tower.place.engine != "ort":
        engine_label(tower.place.engine)  # says now, and not with the first picture, that it is not installed
        if bundle.spec.parts[tower.place.part].precision in SLOW_IN_OPENVINO:
            advice = "export with `vision='int8,int8_static'` or `vision='fp16'`"
            _log.warning("OpenVINO runs this integer tower many times slower than ONNX Runtime; %s", advice)
    spec, settings, low_memory = bundle.spec, opening.settings, opening.low_memory
    encoder = PictureEncoder(
        tower,
        opening.cache,
        lambda: tower_digest(spec, tower.place, opening.tile_batch),
        low_memory=low_memory,
        settle=(lambda picture: tower.settle(picture.tower_input, picture.grids))
        if isinstance(tower, ChoosingTower)
        else None,
    )
    reader, decoder = _read_and_open(
        lambda: BundleReader(bundle, engine), lambda: open_decoder(bundle, engine, settings, lazy=low_memory)
    )
    return Components(
        path=bundle.path,
        engine=engine,
        spec=spec,
        reader=reader,
        tower=tower,
        encoder=encoder,
        decoder=decoder,
        settings=settings,
        placed=lambda: tower.place,
        binding=partial(cache_binding, bundle.path, engine, settings),
    )


def _read_and_open(read: Callable[[], BundleReader], open_now: Callable[[], Decoder]) -> tuple[BundleReader, Decoder]:
    """Tokenizer and template, and the decoder, side by side: the decoder's library works while Python reads.

    Raises:
        EdgeMLLMError: What the first raised, else what the second did.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="edge-mllm-decoder") as pool:
        opened = pool.submit(open_now)
        return read(), opened.result()


def open_placed(bundle: OpenBundle, opening: Opening) -> VisionTower | ChoosingTower:
    """The tower where it will run.

    One that ``auto`` puts on an NPU is loaded at once, to see that it can be. Where several libraries can run it on the
    CPU and none was named, the first picture decides.
    """

    def on(place: Placement) -> VisionTower:
        if opening.check_hashes and place.part != Placement.part:
            bundle.check_part(place.part)
        return VisionTower.of(bundle, threads=opening.settings.threads, place=place, tile_batch=opening.tile_batch)

    place = place_tower(bundle, opening.provider, tiles=opening.tile_batch)
    tower = on(place)
    if place.npu is not None and not place.sure:
        try:
            tower.load()
        except NpuError as error:
            place = fall_back(place, error)
            tower = on(place)
    if opening.provider.name != "auto" or place.npu is not None:
        return tower
    places = cpu_placements(bundle.spec)
    if len(places) == 1:
        return tower
    measures = not opening.low_memory and opening.max_memory is None
    memory = ChoiceMemory(bundle.spec, opening.settings.threads)
    return ChoosingTower(bundle.spec, (place, *places[1:]), on, memory, measures=measures)
