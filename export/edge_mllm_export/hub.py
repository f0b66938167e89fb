"""Checkpoints on the Hugging Face hub: only the files an export reads, into huggingface_hub's own cache."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm_export.checkpoint import read_json
from edge_mllm_export.errors import SourceError
from edge_mllm_export.hub_errors import hub_errors
from edge_mllm_export.progress import Advance, byte_progress
from edge_mllm_export.quantised_source import refuse_quantised

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_log = logging.getLogger(__name__)

_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_SMALL = re.compile(r"[^/]+\.(json|jinja)|merges\.txt|tokenizer\.model|README\.md|LICEN[SC]E[^/]*")
_WEIGHTS = re.compile(r"(model|adapter_model)(-\d+-of-\d+)?\.safetensors")
_PICKLES = re.compile(r"[^/]+\.(bin|pt|pth|ckpt)")
_MAIN_FILES = ("config.json", "adapter_config.json")


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
    return _ID.fullmatch(source) is not None and not source.startswith((".", "~"))


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
    from huggingface_hub import HfApi

    match = _ID.fullmatch(source)
    if match is None:
        raise SourceError(source, "not a hub id (org/name or org/name@revision)")
    repo, revision = match["repo"], match["revision"]
    try:
        with hub_errors(source, repo):
            info = HfApi(endpoint=endpoint).model_info(repo, revision=revision, files_metadata=True)
    except SourceError as error:
        cached = _cached(repo, revision or "main", cache_dir) if _is_unreachable(error.__cause__) else None
        if cached is None:
            raise
        _log.warning("the hub cannot be reached; using the cached copy of %s (%s)", repo, cached.revision[:12])
        return cached
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
    job = _Job(source, repo, revision or "main", str(info.sha), HfApi(endpoint=endpoint), cache_dir)
    return job.run(sizes)


@dataclass(frozen=True)
class _Job:
    """One download of one commit."""

    source: str
    repo: str
    revision: str
    commit: str
    api: HfApi
    cache_dir: Path | None

    def run(self, sizes: Mapping[str, int]) -> Snapshot:
        weights = _weight_names(self.source, sizes)
        small = [name for name in sizes if _SMALL.fullmatch(name)]
        missing = {name: sizes[name] for name in (*small, *weights) if not self._is_cached(name)}
        self._check_space(sum(missing.values()))
        main = next(name for name in _MAIN_FILES if name in sizes)
        with byte_progress(f"downloading {self.repo}", sum(missing.values())) as advance:
            # By the name of the branch, so that the cache learns which commit it stands for: offline use needs that.
            path = self._fetch(main, advance, self.revision).parent
            refuse_quantised(self.source, read_json(path / main))
            for name in (*small, *weights):
                self._fetch(name, advance, path.name)
        return Snapshot(path, self.repo, path.name)

    def _fetch(self, name: str, advance: Advance, revision: str) -> Path:
        with hub_errors(self.source, self.repo):
            bar = _bar_class(advance)
            return Path(
                self.api.hf_hub_download(self.repo, name, revision=revision, cache_dir=self.cache_dir, tqdm_class=bar)
            )

    def _is_cached(self, name: str) -> bool:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repo, name, cache_dir=self.cache_dir, revision=self.commit)
        return isinstance(found, str)

    def _check_space(self, needed: int) -> None:
        directory = _existing(self.cache_dir or _default_cache())
        free = shutil.disk_usage(directory).free
        if needed > free:
            raise SourceError(
                self.source,
                f"the download needs {_gigabytes(needed)} and '{directory}' has {_gigabytes(free)} free; "
                "make room, or set HF_HOME to another disk",
            )
        if needed:
            _log.info("downloading %s of %s into %s", _gigabytes(needed), self.repo, directory)


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


def _bar_class(advance: Advance) -> type[Any]:
    """A tqdm class that shows nothing itself and passes its counts on."""
    from tqdm import tqdm  # type: ignore[import-untyped]  # comes with huggingface_hub

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            advance(int(n or 0))

    return Bar


def _cached(repo: str, revision: str, cache_dir: Path | None) -> Snapshot | None:
    from huggingface_hub import try_to_load_from_cache

    for name in _MAIN_FILES:
        found = try_to_load_from_cache(repo, name, cache_dir=cache_dir, revision=revision)
        if isinstance(found, str):
            path = Path(found).parent
            return Snapshot(path, repo, path.name)
    return None


def _is_unreachable(cause: BaseException | None) -> bool:
    """Whether nothing answered, as opposed to an answer that says no."""
    from huggingface_hub import errors

    return not isinstance(cause, errors.HfHubHTTPError | errors.HFValidationError)


def _default_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
