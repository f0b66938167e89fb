"""From the SOURCE argument to a checkpoint: opened with its weights, or described by its configuration files alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_mllm.errors import SettingError
from edge_mllm_export.checkpoint.checkpoint import (
    Checkpoint,
    describe_checkpoint,
    open_checkpoint,
    read_processor,
    refuse_pointers,
)
from edge_mllm_export.checkpoint.quantised import refuse_quantised, refuse_quantised_files
from edge_mllm_export.checkpoint.tensor_store import TensorInfo, read_inventory
from edge_mllm_export.errors import AdapterError, QuantisedError, SourceError
from edge_mllm_export.families.registry import family_of
from edge_mllm_export.json_files import read_json
from edge_mllm_export.shapes import PREFIX, load_shape, open_shape
from edge_mllm_export.source.adapter.config import AdapterConfig, read_adapter_config
from edge_mllm_export.source.adapter.merge import is_adapter, merge_adapter
from edge_mllm_export.source.hub.configuration import fetch_configuration
from edge_mllm_export.source.hub.download import download, is_hub_id
from edge_mllm_export.source.layouts.registry import layout_of
from edge_mllm_export.source.vocabulary import with_tokenizer_json
from edge_mllm_export.tokenizer.directory import refuse_splitting

_GGUF = "GGUF files are already exported; 'edge-mllm run -m' opens a decoder with its mmproj as they are"


@dataclass(frozen=True)
class _Place:
    """A directory with the name it goes by."""

    source: str
    path: Path
    id: str
    revision: str | None = None


_Fetch = Callable[[str], _Place]
"""Brings a hub id to this machine."""


def resolve_source(source: str, scratch: Path, base: str | None = None) -> Checkpoint:
    """Open what the user asked for.

    Args:
        source: A checkpoint or adapter directory, a hub id ``org/name`` or ``org/name@revision``, or ``shape:NAME``.
        scratch: Existing directory for what has to be written first; it must live as long as the checkpoint is used.
        base: A directory or hub id of an adapter's base, in place of what the adapter names.

    Raises:
        SourceError: It leads nowhere, is no checkpoint, or is quantised already.
        CheckpointError: The checkpoint is damaged.
        SettingError: A base is given, and the source is no adapter.
    """
    if source.startswith(PREFIX):
        _refuse_base(base)
        return open_shape(source.removeprefix(PREFIX), scratch)
    place = _locate(source, _whole)
    if not is_adapter(place.path):
        _refuse_base(base)
        return _open_directory(place, scratch)
    config = read_adapter_config(place.source, place.path)
    opened = _opened_base(place, base or _base_of(place, config), _whole, lambda found: _open_directory(found, scratch))
    return merge_adapter(place.id, place.path, config, opened, Path(tempfile.mkdtemp(prefix="merged-", dir=scratch)))


def _refuse_base(base: str | None) -> None:
    if base is not None:
        raise SettingError(f"`base` is for adapters, and the source is none; leave `base` ('{base}') out")


def describe_source(source: str) -> Checkpoint:
    """What :func:`resolve_source` would open, from its configuration files: without tensors, nothing is written.

    Raises:
        SourceError: It leads nowhere, is no checkpoint, or is quantised already.
        CheckpointError: A configuration file is damaged.
    """
    if source.startswith(PREFIX):
        plan = load_shape(source.removeprefix(PREFIX))
        documents = {
            "config": plan.config,
            "preprocessor_config": plan.preprocessor,
            "processor_config": plan.processor,
        }
        return describe_checkpoint(Path(source), source, documents)
    place = _locate(source, _configuration)
    if not is_adapter(place.path):
        return _describe_directory(place)
    name = _base_of(place, read_adapter_config(place.source, place.path))
    return _opened_base(place, name, _configuration, _describe_directory)


def _whole(source: str) -> _Place:
    snapshot = download(source)
    return _Place(source, snapshot.path, snapshot.repo, snapshot.revision)


def _configuration(source: str) -> _Place:
    return _Place(source, fetch_configuration(source), source)


def _locate(source: str, fetch: _Fetch) -> _Place:
    path = Path(source).expanduser()
    if path.is_dir():
        return _Place(source, path, path.resolve().name)
    if path.is_file():
        reason = _GGUF if path.suffix == ".gguf" else "it is a file; give the checkpoint's directory"
        raise SourceError(source, reason)
    if is_hub_id(source):
        return fetch(source)
    raise SourceError(source, f"no such directory, no hub id (org/name[@revision]) and no shape ({PREFIX}NAME)")


def _read_config(place: _Place) -> dict[str, Any]:
    """config.json of a directory that holds a checkpoint in floats."""
    source, path = place.source, place.path
    if (path / "bundle.json").is_file():
        raise SourceError(source, "it is a bundle already; 'edge-mllm run -m' opens it")
    if not (path / "config.json").is_file():
        if any(path.glob("*.gguf")):
            raise SourceError(source, _GGUF)
        raise SourceError(source, "the directory has no config.json, so it is no checkpoint")
    refuse_quantised_files(source, path)
    config = read_json(path / "config.json")
    refuse_quantised(place.id, config, path)
    return config


def _open_directory(place: _Place, scratch: Path) -> Checkpoint:
    path, config = place.path, _read_config(place)
    refuse_pointers(path)
    refuse_splitting(path)
    layout = layout_of(config)
    if layout is not None:
        path = layout.rewrite(path, config, Path(tempfile.mkdtemp(prefix="native-", dir=scratch)))
    else:
        family_of(config)  # an unknown kind is the first thing to say, before its files are looked for
        path = with_tokenizer_json(path, scratch)
    checkpoint = open_checkpoint(path, id=place.id, revision=place.revision)
    return checkpoint if layout is None else replace(checkpoint, origin=place.path)


def _describe_directory(place: _Place) -> Checkpoint:
    path, config = place.path, _read_config(place)
    layout = layout_of(config)
    if layout is not None:
        return describe_checkpoint(path, place.id, layout.describe(path, config, _stored(path, config)))
    family_of(config)
    processor, settings = read_processor(path)
    return _described(path, place.id, config, processor, settings)


def _described(
    path: Path, id: str, config: dict[str, Any], processor: dict[str, Any], settings: dict[str, Any]
) -> Checkpoint:
    documents = {"config": config, "preprocessor_config": processor, "processor_config": settings}
    return describe_checkpoint(path, id, documents)


def _stored(path: Path, config: dict[str, Any]) -> dict[str, TensorInfo]:
    """The tensors of a directory; none where it holds configuration files alone."""
    return read_inventory(path, str(config.get("model_type"))) if any(path.glob("*.safetensors")) else {}


def _base_of(place: _Place, config: AdapterConfig) -> str:
    """A directory, relative to the adapter's own folder and not to where somebody stands, or a hub id.

    Raises:
        AdapterError: It is a relative path that is not there.
    """
    beside = place.path / Path(config.base).expanduser()
    if beside.is_dir():
        return str(beside)
    if not is_hub_id(config.base):
        seen = "" if Path(config.base).is_absolute() else ", seen from the adapter's folder"
        trained = _trained_from(place.path)
        named = f" (args.json: {trained})" if trained else ""
        reason = f"its base '{config.base}' is not there{seen}; name it with `base`{named}"
        raise AdapterError(place.source, reason)
    return f"{config.base}@{config.revision}" if config.revision else config.base


def _trained_from(adapter: Path) -> str | None:
    """The base that ms-swift's arguments name; its adapter_config.json names a folder of the training machine."""
    file = adapter / "args.json"
    named = read_json(file).get("model") if file.is_file() else None
    return named if isinstance(named, str) and is_hub_id(named) else None


def _opened_base(place: _Place, name: str, fetch: _Fetch, open_it: Callable[[_Place], Checkpoint]) -> Checkpoint:
    """The checkpoint that an adapter belongs to."""
    try:
        found = _locate(name, fetch)
        if is_adapter(found.path):
            raise SourceError(name, "it is an adapter too, merge that one first")
        return open_it(found)
    except SourceError as error:
        instead = "; name the same base in floats with `base`" if isinstance(error, QuantisedError) else ""
        raise AdapterError(place.source, f"its base '{name}' cannot be used: {error.reason}{instead}") from error
