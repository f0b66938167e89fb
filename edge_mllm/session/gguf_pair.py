"""From two files to the pieces of a model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from edge_mllm.answer.components import Components
from edge_mllm.answer.pictures.encoder import PictureEncoder
from edge_mllm.answer.readers.gguf_reader import PairReader
from edge_mllm.bundle.checked import remembered_sha256
from edge_mllm.bundle.gguf_pair import PairFiles, read_pair
from edge_mllm.decoders.llama.decoder import LlamaDecoder
from edge_mllm.errors import EngineError, SettingError
from edge_mllm.prompt.gguf_vocabulary import LlamaVocabulary
from edge_mllm.tower.mtmd import MtmdTower, NoTower

if TYPE_CHECKING:
    from edge_mllm.session.opening import Opening


def pair_components(opening: Opening) -> Components:
    """Load a GGUF file and its mmproj.

    Raises:
        ModelNotFoundError: A file is not there.
        BundleError: A file is damaged or of another kind.
        PartMismatchError: They do not belong together.
        EngineError: llama.cpp refuses one of them, or another engine is asked for.
        ExtraMissingError: llama-cpp-python is not installed.
        SettingError: An option that this layout does not have.
    """
    if opening.engine not in (None, "gguf"):
        raise EngineError(f"no engine '{opening.engine}' here: '{opening.path}' is a GGUF file, which has gguf")
    if opening.low_memory:
        raise SettingError("`low_memory` is not for GGUF files: libmtmd needs tower and decoder together")
    files = read_pair(opening.path, opening.mmproj)
    decoder = LlamaDecoder(files.model, files.decoder, opening.settings)
    try:
        tower = _tower(files, decoder, opening.settings.threads)
        vocabulary = LlamaVocabulary(decoder.model, strips_first_space=files.strips_first_space)
        reader = PairReader(files, vocabulary, tower)
    except BaseException:
        decoder.close()
        raise
    runs = tower or NoTower(decoder.row_width)
    return Components(
        path=files.model,
        engine="gguf",
        spec=None,
        reader=reader,
        tower=runs,
        encoder=PictureEncoder(runs, opening.cache, lambda: _digest(files.mmproj)),
        decoder=decoder,
        settings=opening.settings,
        binding=_no_binding,
    )


def _tower(files: PairFiles, decoder: LlamaDecoder, threads: int) -> MtmdTower | None:
    if files.mmproj is None:
        return None
    gridded = files.decoder.positions == "mrope"
    tower = MtmdTower(files.mmproj, decoder.model, decoder.row_width, threads, gridded=gridded)
    if tower.bidirectional:
        decoder.set_image_attention("bidirectional")
    return tower


def _digest(mmproj: Path | None) -> bytes:
    """32 bytes that stand for the tower and for libmtmd."""
    from importlib.metadata import version

    file = remembered_sha256(mmproj) if mmproj is not None else ""
    return hashlib.sha256(f"libmtmd {version('llama-cpp-python')} {file}".encode()).digest()


def _no_binding() -> NoReturn:
    raise SettingError("a chat with a GGUF file cannot be saved; export a bundle for that (edge-mllm export)")
