"""Runs on the emulated processor: one part of a model, between marks that the plug-in of the emulator counts at.

    python guest.py BUNDLE PART          # PART as in PARTS; a tower by its file, beside the bundle

Everything has one thread, so that counts are exact. It prints one JSON object: versions, and what stands between marks
2n and 2n + 1, with the number of tiles or tokens.
"""

from __future__ import annotations

import ctypes
import json
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edge_mllm.bundle.files import OpenBundle
from edge_mllm.decoders.protocol import Tokens
from edge_mllm.decoders.select import open_decoder
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.machine.fingerprint import package_versions
from edge_mllm.machine.llama import library, load_model
from edge_mllm.session.files import open_bundle
from edge_mllm.tower.tower import VisionTower

MARK = 0x65646765
"""As count_instructions.c has it."""
PROMPT_TOKENS, STEPS = 64, 4
MARKER = "<__media__>"
_IMAGE = 1


class Marked:
    """Sets marks, and remembers what is between them."""

    def __init__(self) -> None:
        self.pieces: list[dict[str, Any]] = []
        self._prctl = ctypes.CDLL(None).prctl
        self._prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]

    def __call__(self, stage: str, units: int, work: Callable[[], object]) -> None:
        """Do something once between two marks."""
        first = 2 * len(self.pieces)
        self._prctl(MARK, first, 0, 0, 0)
        work()
        self._prctl(MARK, first + 1, 0, 0, 0)
        self.pieces.append({"stage": stage, "units": units})


def prompt_ids(bundle: OpenBundle) -> Any:
    """Token ids int64 [n], all below the vocabulary."""
    return np.random.default_rng(0).integers(0, bundle.spec.decoder.n_vocab, PROMPT_TOKENS, dtype=np.int64)


def own_tower(bundle: OpenBundle, file: str, marked: Marked) -> None:
    """A tile of noise through our tower, twice."""
    tower = VisionTower.of(bundle, threads=1, file=bundle.path.parent / file)
    tower.load()
    spec = bundle.spec.vision
    shape = (1, 3, spec.tile_height, spec.tile_width)
    pixels = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    for _ in range(2):
        marked("tile", 1, lambda: tower.encode(pixels))


def own_decoder(bundle: OpenBundle, marked: Marked, engine: str, *, prompt_weights: bool) -> None:
    """A prompt into an empty cache, twice, then single tokens."""
    settings = DecoderSettings(threads=1, n_ctx=256, prompt_weights="keep" if prompt_weights else "off")
    decoder = open_decoder(bundle, engine, settings)  # type: ignore[arg-type]
    ids = prompt_ids(bundle)
    decoder.reserve(PROMPT_TOKENS + STEPS)
    decoder.warm(PROMPT_TOKENS)
    for _ in range(2):
        decoder.truncate(0)
        marked("prompt", PROMPT_TOKENS, lambda: decoder.prefill([Tokens(ids)]))
    decoder.step(int(ids[0]))
    for token in ids[1 : STEPS + 1].tolist():
        marked("token", 1, lambda token=token: decoder.step(token))  # type: ignore[misc]


def bare_llama(bundle: OpenBundle, marked: Marked) -> None:
    """The same through ``llama_decode`` and nothing else."""
    api = library().api
    model = load_model(bundle.file("decoder_gguf"), mmap=True)
    parameters = api.llama_context_default_params()
    parameters.n_ctx, parameters.n_threads, parameters.n_threads_batch = 256, 1, 1
    context = api.llama_init_from_model(model.address, parameters)
    ids = prompt_ids(bundle).astype(np.int32)

    def decode(run: Any) -> None:
        pointer = run.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        if api.llama_decode(context, api.llama_batch_get_one(pointer, len(run))) != 0:
            raise RuntimeError("llama.cpp failed to decode")
        api.llama_synchronize(context)

    for _ in range(2):
        api.llama_memory_clear(api.llama_get_memory(context), False)
        marked("prompt", PROMPT_TOKENS, lambda: decode(ids))
    decode(ids[:1])
    for place in range(1, STEPS + 1):
        marked("token", 1, lambda place=place: decode(ids[place : place + 1]))  # type: ignore[misc]


def libmtmd(bundle: OpenBundle, file: str, marked: Marked) -> None:
    """One tile of a picture of noise through llama.cpp's libmtmd, twice; cutting the picture is not counted."""
    from llama_cpp import mtmd_cpp as mtmd

    lib = library()
    mtmd.mtmd_log_set(lib.callback, ctypes.c_void_p(0))  # what it says of every tile is not printed
    model = load_model(bundle.file("decoder_gguf"), mmap=True)
    options = mtmd.mtmd_context_params_default()
    options.use_gpu, options.n_threads, options.print_timings, options.warmup = False, 1, False, False
    tower = mtmd.mtmd_init_from_file(str(bundle.path.parent / file).encode(), model.address, options)
    if not tower:
        raise lib.failure(f"libmtmd does not load {file}")
    spec = bundle.spec.vision
    shape = (spec.tile_height, spec.tile_width, 3)
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with image_chunks(mtmd, tower, picture) as chunks:
        tokens = mtmd.mtmd_input_chunk_get_n_tokens(chunks[0])
        if tokens != spec.tokens_per_tile:
            raise RuntimeError(f"libmtmd's tile has {tokens} tokens, the bundle's {spec.tokens_per_tile}")
        for _ in range(2):
            marked("tile", 1, lambda: mtmd.mtmd_encode_chunk(tower, chunks[0]))


@contextmanager
def image_chunks(mtmd: Any, tower: Any, picture: Any) -> Iterator[list[Any]]:
    """What libmtmd makes of one picture, without the text between; valid inside the block."""
    pointer = picture.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    bitmap, found = mtmd.mtmd_bitmap_init(picture.shape[1], picture.shape[0], pointer), mtmd.mtmd_input_chunks_init()
    text = mtmd.mtmd_input_text(MARKER.encode(), len(MARKER), False, True)
    try:
        if mtmd.mtmd_tokenize(tower, found, ctypes.byref(text), (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap), 1) != 0:
            raise RuntimeError("libmtmd does not take the picture")
        chunks = [mtmd.mtmd_input_chunks_get(found, n) for n in range(mtmd.mtmd_input_chunks_size(found))]
        yield [chunk for chunk in chunks if mtmd.mtmd_input_chunk_get_type(chunk) == _IMAGE]
    finally:
        mtmd.mtmd_input_chunks_free(found)
        mtmd.mtmd_bitmap_free(bitmap)


PARTS: dict[str, Callable[[OpenBundle, Marked], None]] = {
    "tower int8": lambda bundle, marked: own_tower(bundle, "model.edge/vision.onnx", marked),
    "tower fp32": lambda bundle, marked: own_tower(bundle, "tower-fp32.edge/vision.onnx", marked),
    "libmtmd q8_0": lambda bundle, marked: libmtmd(bundle, "mmproj-q8_0.gguf", marked),
    "libmtmd f16": lambda bundle, marked: libmtmd(bundle, "mmproj-f16.gguf", marked),
    "onnx": lambda bundle, marked: own_decoder(bundle, marked, "onnx", prompt_weights=False),
    "onnx, int8 prompt": lambda bundle, marked: own_decoder(bundle, marked, "onnx", prompt_weights=True),
    "gguf": lambda bundle, marked: own_decoder(bundle, marked, "gguf", prompt_weights=False),
    "llama.cpp": bare_llama,
}


def main() -> None:
    """Run a part."""
    bundle, marked = open_bundle(Path(sys.argv[1]), check_hashes=False), Marked()
    marked("nothing", 1, lambda: None)
    PARTS[sys.argv[2]](bundle, marked)
    features = library().api.llama_print_system_info().decode() if "llama_cpp" in sys.modules else ""
    about = {"machine": platform.machine(), "versions": package_versions(), "llama_features": features}
    print(json.dumps(about | {"pieces": marked.pieces}))


if __name__ == "__main__":
    main()
