"""From the SOURCE argument to an open checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mllm_export.adapter_config import read_adapter_config
from edge_mllm_export.adapters import is_adapter, merge_adapter
from edge_mllm_export.checkpoint import Checkpoint, open_checkpoint, read_json
from edge_mllm_export.errors import AdapterError, SourceError
from edge_mllm_export.families import family_of
from edge_mllm_export.ferret_original import is_ferret_original, rewrite_ferret_original
from edge_mllm_export.hub import download, is_hub_id
from edge_mllm_export.internvl_chat import is_internvl_chat, rewrite_internvl_chat
from edge_mllm_export.llava_original import is_llava_original, rewrite_llava_original
from edge_mllm_export.quantised_source import refuse_quantised_files
from edge_mllm_export.shapes import PREFIX, open_shape

_GGUF = "GGUF files are already exported; 'edge-mllm run -m' opens a decoder with its mmproj as they are"

_REWRITES: tuple[tuple[Callable[[dict[str, Any]], bool], Callable[[Path, dict[str, Any], Path], Path]], ...] = (
    (is_internvl_chat, rewrite_internvl_chat),
    (is_llava_original, rewrite_llava_original),
    (is_ferret_original, rewrite_ferret_original),
)
"""Whether a config.json is of another layout, and what writes the checkpoint as a family reads it."""


def resolve_source(source: str, scratch: Path) -> Checkpoint:
    """Open what the user asked for.

    Args:
        source: A checkpoint or adapter directory, a hub id ``org/name`` or ``org/name@revision``, or ``shape:NAME``.
        scratch: Existing directory for what has to be written first; it must live as long as the checkpoint is used.

    Raises:
        SourceError: It leads nowhere, is no checkpoint, or is quantised already.
        CheckpointError: The checkpoint is damaged.
    """
    if source.startswith(PREFIX):
        return open_shape(source.removeprefix(PREFIX), scratch)
    place = _locate(source)
    return _open_adapter(place, scratch) if is_adapter(place.path) else _open_directory(place, scratch)


@dataclass(frozen=True)
class _Place:
    """A directory with the name it goes by."""

    source: str
    path: Path
    id: str
    revision: str | None = None


def _locate(source: str) -> _Place:
    path = Path(source).expanduser()
    if path.is_dir():
        return _Place(source, path, path.resolve().name)
    if path.is_file():
        reason = _GGUF if path.suffix == ".gguf" else "it is a file; give the checkpoint's directory"
        raise SourceError(source, reason)
    if is_hub_id(source):
        snapshot = download(source)
        return _Place(source, snapshot.path, snapshot.repo, snapshot.revision)
    raise SourceError(source, f"no such directory, no hub id (org/name[@revision]) and no shape ({PREFIX}NAME)")


def _open_directory(place: _Place, scratch: Path) -> Checkpoint:
    source, path = place.source, place.path
    if (path / "bundle.json").is_file():
        raise SourceError(source, "it is a bundle already; 'edge-mllm run -m' opens it")
    if not (path / "config.json").is_file():
        if any(path.glob("*.gguf")):
            raise SourceError(source, _GGUF)
        raise SourceError(source, "the directory has no config.json, so it is no checkpoint")
    refuse_quantised_files(source, path)
    config = read_json(path / "config.json")
    rewrite = next((write for fits, write in _REWRITES if fits(config)), None)
    if rewrite is not None:
        path = rewrite(path, config, Path(tempfile.mkdtemp(prefix="native-", dir=scratch)))
    else:
        family_of(config)  # an unknown kind is the first thing to say, before its files are looked for
    return open_checkpoint(path, id=place.id, revision=place.revision)


def _open_adapter(place: _Place, scratch: Path) -> Checkpoint:
    config = read_adapter_config(place.source, place.path)
    beside = place.path / config.base  # an adapter may name its base relative to itself
    name = str(beside) if beside.is_dir() else config.base
    if config.revision and not Path(name).is_dir():
        name = f"{name}@{config.revision}"
    try:
        found = _locate(name)
        if is_adapter(found.path):
            raise SourceError(name, "it is an adapter too, merge that one first")
        base = _open_directory(found, scratch)
    except SourceError as error:
        raise AdapterError(place.source, f"its base '{config.base}' cannot be used: {error.reason}") from error
    out = Path(tempfile.mkdtemp(prefix="merged-", dir=scratch))
    return merge_adapter(place.id, place.path, config, base, out)
