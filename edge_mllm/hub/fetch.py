"""Files of one commit of a repository, into huggingface_hub's own cache: each once, in one progress bar."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mllm.errors import HubError
from edge_mllm.hub.errors import Raised, hub_errors
from edge_mllm.hub.progress import Advance, bar_class, byte_progress

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Repository:
    """One commit of a repository."""

    source: str
    """As the user wrote it."""
    repo: str
    """``org/name``."""
    revision: str
    """The branch, tag or commit that was asked for."""
    commit: str
    """40 hex digits."""
    sizes: Mapping[str, int]
    """File -> bytes."""
    licence: str | None
    """As its card says."""
    api: HfApi
    cache_dir: Path | None
    raised: Raised = HubError

    @staticmethod
    def ask(
        source: str,
        repo: str,
        revision: str | None,
        *,
        endpoint: str | None = None,
        cache_dir: Path | None = None,
        raised: Raised = HubError,
    ) -> Repository:
        """Ask the hub what there is: one request.

        Raises:
            HubError: Not found, gated, no such revision, no network.
        """
        from huggingface_hub import HfApi

        api = HfApi(endpoint=endpoint)
        with hub_errors(source, repo, raised):
            info = api.model_info(repo, revision=revision, files_metadata=True)
        sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
        licence = info.card_data.get("license") if info.card_data else None
        return Repository(source, repo, revision or "main", str(info.sha), sizes, licence, api, cache_dir, raised)

    def fetch(
        self, names: Sequence[str], look: Callable[[Path], None] = lambda _: None, then: Sequence[str] = ()
    ) -> Path:
        """Have these files; what is in the cache is not fetched again. Return the snapshot's directory.

        Args:
            names: In order, at least one.
            look: Called with the snapshot's directory when they are there; what it raises ends the work.
            then: More files.

        A connection that breaks is taken up again where it stopped, and complete files are kept after an interruption
        (both are huggingface_hub's own doing).

        Raises:
            HubError: The disk is too small, or a file cannot be had.
        """
        missing = self.missing_bytes([*names, *then])
        self.check_space(missing)
        with byte_progress(f"downloading {self.repo}", missing) as advance:
            # By the name of the branch, so that the cache learns which commit it stands for: offline use needs that.
            place = self.fetch_one(names[0], advance, self.revision).parents[names[0].count("/")]
            for name in names[1:]:
                self.fetch_one(name, advance, self.commit)
            look(place)
            for name in then:
                self.fetch_one(name, advance, self.commit)
        return place

    def fetch_one(self, name: str, advance: Advance, revision: str) -> Path:
        """Have one file; return its path in the cache."""
        with hub_errors(self.source, self.repo, self.raised):
            bar = bar_class(advance)
            return Path(
                self.api.hf_hub_download(self.repo, name, revision=revision, cache_dir=self.cache_dir, tqdm_class=bar)
            )

    def missing_bytes(self, names: Sequence[str]) -> int:
        """What is still to be fetched of these files."""
        return sum(self.sizes[name] for name in names if not self._is_cached(name))

    def check_space(self, needed: int) -> None:
        """Refuse before anything is fetched where the disk is too small.

        Raises:
            HubError: With both sizes.
        """
        directory = _existing(self.cache_dir or default_cache())
        free = shutil.disk_usage(directory).free
        if needed > free:
            raise self.raised(
                self.source,
                f"the download needs {_gigabytes(needed)} and '{directory}' has {_gigabytes(free)} free; "
                "make room, or set HF_HOME to another disk",
            )
        if needed:
            _log.info("downloading %s of %s into %s", _gigabytes(needed), self.repo, directory)

    def _is_cached(self, name: str) -> bool:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repo, name, cache_dir=self.cache_dir, revision=self.commit)
        return isinstance(found, str)


def is_unreachable(cause: BaseException | None) -> bool:
    """Whether nothing answered, as opposed to an answer that says no."""
    from huggingface_hub import errors

    return not isinstance(cause, errors.HfHubHTTPError | errors.HFValidationError)


def default_cache() -> Path:
    """huggingface_hub's cache directory."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
