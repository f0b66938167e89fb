"""Checkpoints on the Hugging Face hub: only the files an export reads, into huggingface_hub's own cache."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_mllm.hub.fetch import Repository, is_unreachable
from edge_mllm.hub.names import split_id
from edge_mllm_export.checkpoint.quantised import refuse_quantised
from edge_mllm_export.errors import SourceError
from edge_mllm_export.json_files import read_json

_log = logging.getLogger(__name__)

_SMALL = re.compile(r"[^/]+\.(json|jinja)|merges\.txt|tokenizer\.model|README\.md|LICEN[SC]E[^/]*")
_WEIGHTS = re.compile(r"(model|adapter_model)(-\d+-of-\d+)?\.safetensors")
_PICKLES = re.compile(r"[^/]+\.(bin|pt|pth|ckpt)")
_MAIN_FILES = ("config.json", "adapter_config.json")
_CARD = "README.md"


@dataclass(frozen=True)
class Snapshot:
    """A downloaded checkpoint."""

    path: Path
    repo: str
    """``org/name``."""
    revision: str
    """The commit, 40 hex digits."""


def is_hub_id(source: str) -> bool:
    """Whether ``source`` has the form ``org/name`` or ``org/name@revision``."""
    return split_id(source) is not None


def download(source: str, *, endpoint: str | None = None, cache_dir: Path | None = None) -> Snapshot:
    """Fetch what an export needs of ``org/name[@revision]``; what is cached is not fetched again.

    A connection that breaks is taken up again where it stopped; after an interrupted run the next one keeps the files
    that were complete (both are huggingface_hub's own doing). The small files come first, so that a checkpoint that
    cannot be exported is refused before its weights are fetched. When the hub cannot be reached, a cached copy is used
    and a warning says so.

    Args:
        source: The hub id.
        endpoint: Address of the hub; huggingface_hub's default (HF_ENDPOINT) when absent.
        cache_dir: huggingface_hub's cache directory; its default when absent.

    Raises:
        SourceError: Not found, gated, no such revision, a file is missing, no network, no space, or it is quantised.
    """
    found = split_id(source)
    if found is None:
        raise SourceError(source, "not a hub id (org/name or org/name@revision)")
    repo, revision = found
    try:
        there = Repository.ask(source, repo, revision, endpoint=endpoint, cache_dir=cache_dir, raised=SourceError)
    except SourceError as error:
        cached = cached_snapshot(repo, revision or "main", cache_dir) if is_unreachable(error.__cause__) else None
        if cached is None:
            raise
        _log.warning("the hub cannot be reached; using the cached copy of %s (%s)", repo, cached.revision[:12])
        return cached
    weights = _weight_names(source, there.sizes)
    small = [name for name in there.sizes if _SMALL.fullmatch(name)]
    main = next(name for name in _MAIN_FILES if name in there.sizes)
    first = [main, *({_CARD} & there.sizes.keys())]  # the card may name what a quantised model was made of
    rest = [name for name in (*small, *weights) if name not in first]

    def look(place: Path) -> None:
        refuse_quantised(source, read_json(place / main), place)

    path = there.fetch(first, look, rest)
    return Snapshot(path, repo, path.name)


def _weight_names(source: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    if not any(name in _MAIN_FILES for name in names):
        if any(name.endswith(".gguf") for name in names):
            raise SourceError(source, "it holds GGUF files, which are exported already; download them and use 'run -m'")
        raise SourceError(source, "the file config.json is missing there, so it is no checkpoint")
    weights = sorted(name for name in names if _WEIGHTS.fullmatch(name))
    sharded = [name for name in weights if name != "model.safetensors"]
    if "model.safetensors.index.json" in names:
        weights = sharded
    if weights:
        return weights
    if any(_PICKLES.fullmatch(name) for name in names):
        raise SourceError(
            source,
            "its weights are Python pickles, which can run code and are never opened; "
            "look for a revision with safetensors (often refs/pr/N, see the model's discussions)",
        )
    raise SourceError(source, "the file model.safetensors is missing there")


def cached_snapshot(repo: str, revision: str, cache_dir: Path | None) -> Snapshot | None:
    """The copy of a repository in huggingface_hub's cache; None where there is none."""
    from huggingface_hub import try_to_load_from_cache

    for name in _MAIN_FILES:
        found = try_to_load_from_cache(repo, name, cache_dir=cache_dir, revision=revision)
        if isinstance(found, str):
            path = Path(found).parent
            return Snapshot(path, repo, path.name)
    return None
