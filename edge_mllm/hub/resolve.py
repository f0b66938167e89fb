"""From what a user wrote for a model to files on this disk, fetched where they are not there yet.

What was found for a name is remembered beside the caches of this package, so that the next start asks nobody: the
commit, the files and what is opened. ``edge-mllm pull`` asks again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from edge_mllm.bundle.files import SPEC_FILE, OpenBundle
from edge_mllm.errors import CheckpointOnlyError, HubError
from edge_mllm.hub.fetch import Repository, default_cache, is_unreachable
from edge_mllm.hub.layouts import Choice, Layout, choose
from edge_mllm.hub.names import HubName, read_name
from edge_mllm.machine.folders import cache_folder
from edge_mllm.typed_json import FieldError, read_typed
from edge_mllm.whole_file import write_whole

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What of a repository is wanted, where it holds several things."""

    layout: str | None = None
    """One of :data:`edge_mllm.hub.layouts.LAYOUTS`; None takes the first that can be run."""
    precision: str | None = None
    quant: str | None = None


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A model that was fetched."""

    source: str
    """As it was written."""
    repo: str
    commit: str
    layout: Layout
    snapshot: str
    """Directory in huggingface_hub's cache."""
    files: tuple[str, ...]
    opened: str
    """What is opened, from the snapshot; empty for the whole of it."""
    mmproj: str | None = None
    licence: str | None = None

    @property
    def path(self) -> Path:
        """What :func:`edge_mllm.load` opens."""
        return Path(self.snapshot) / self.opened

    @property
    def mmproj_path(self) -> Path | None:
        """The tower of a GGUF file."""
        return None if self.mmproj is None else Path(self.snapshot) / self.mmproj

    def path_of(self, file: str) -> Path:
        """Where one of the files lies."""
        return Path(self.snapshot) / file

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.path_of(file).stat().st_size for file in self.files)

    @property
    def whole(self) -> bool:
        """Whether all files are still there."""
        return all(self.path_of(name).exists() for name in self.files)


def resolve(text: str | Path, wanted: Wanted | None = None, *, refresh: bool = False) -> Fetched | None:
    """The model of a name, fetched where it is not here; None for a path.

    Args:
        text: See :func:`edge_mllm.hub.names.read_name`.
        wanted: What of the repository.
        refresh: Ask the hub even where the name was found before.

    Raises:
        HubError: It cannot be had, or holds nothing that can be run.
        CheckpointOnlyError: It holds a checkpoint, which must be exported first.
    """
    name, wanted = read_name(text), wanted or Wanted()
    if name is None:
        return None
    record = _record(name, wanted)
    known = None if refresh else read_record(record)
    if known is not None and known.whole:
        return known
    try:
        found = _fetch(name, wanted)
    except HubError as error:
        old = read_record(record)
        if old is None or not old.whole or not is_unreachable(error.__cause__):
            raise
        _log.warning("the hub cannot be reached; using what was fetched before")
        return old
    _remember(record, found)
    return found


def export_place(text: str) -> Path:
    """Where the bundle of a repository's checkpoint lies that was exported for its name."""
    name = re.sub(r"[^\w.-]+", "--", text)
    return cache_folder() / "exports" / f"{name}.edge"


def adopt_export(text: str, wanted: Wanted, bundle: OpenBundle) -> Fetched:
    """Have a name stand for the bundle that was exported from its checkpoint."""
    name = read_name(text)
    assert name is not None  # noqa: S101  (it was looked up before)
    spec = bundle.spec
    found = Fetched(
        source=name.source,
        repo=name.repos[-1],
        commit=spec.source.revision or "",
        layout="bundle",
        snapshot=str(bundle.path),
        files=(SPEC_FILE, *(part.file for part in spec.parts.values())),
        opened="",
        licence=spec.source.licence,
    )
    _remember(_record(name, wanted), found)
    return found


def _remember(record: Path, found: Fetched) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    write_whole(record, [json.dumps(dataclasses.asdict(found), indent=1).encode() + b"\n"])


def records() -> list[Fetched]:
    """All models that were fetched by name and are still there."""
    found = (read_record(path) for path in sorted(_folder().glob("*.json")))
    return [each for each in found if each is not None and each.whole]


def forget(fetched: Fetched) -> int:
    """Remove what was fetched for a name from huggingface_hub's cache; return the bytes that it frees.

    Files that another name needs too stay.
    """
    kept = {Path(other.snapshot) / name for other in records() if other != fetched for name in other.files}
    freed = 0
    for name in fetched.files:
        link = Path(fetched.snapshot) / name
        if link in kept or not link.exists():
            continue
        blob = link.resolve()
        freed += blob.stat().st_size
        link.unlink()
        if blob != link and blob.is_relative_to(Path(fetched.snapshot).parents[1]):
            blob.unlink()
    if Path(fetched.snapshot).parent == cache_folder() / "exports":
        shutil.rmtree(fetched.snapshot, ignore_errors=True)
    for path in _folder().glob("*.json"):
        if read_record(path) == fetched:
            path.unlink()
    return freed


def read_record(path: Path) -> Fetched | None:
    """What was found for a name before; None where there is nothing that can be read."""
    try:
        found: Fetched = read_typed(Fetched, json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, FieldError):
        return None
    return found


def _fetch(name: HubName, wanted: Wanted) -> Fetched:
    """Look into the repositories of a name, and take the first that runs here."""
    refusals: list[HubError] = []
    for repo in name.repos:
        try:
            there = Repository.ask(name.source, repo, name.revision)
            choice = choose(name.source, there.sizes, **dataclasses.asdict(wanted))
        except HubError as error:
            refusals.append(error)
            continue
        if choice.layout == "checkpoint":
            if repo != name.repos[-1]:
                continue
            to = repo.split("/")[1].lower()
            made = f"edge-mllm export {name.source} -o {to}.edge"
            reason = f"it is a checkpoint; type: {made}, or pull it with `export`"
            raise CheckpointOnlyError(name.source, reason)
        return _take(name, there, choice)
    raise refusals[0]


def _take(name: HubName, there: Repository, choice: Choice) -> Fetched:
    if there.missing_bytes(choice.files) and there.licence:
        _log.warning("%s: licence %s", there.repo, there.licence)
    snapshot = there.fetch(choice.files)
    return Fetched(
        source=name.source,
        repo=there.repo,
        commit=there.commit,
        layout=choice.layout,
        snapshot=str(snapshot),
        files=choice.files,
        opened=choice.opened,
        mmproj=choice.mmproj,
        licence=there.licence,
    )


def _folder() -> Path:
    return cache_folder() / "models"


def _record(name: HubName, wanted: Wanted) -> Path:
    """Where is remembered what a name gave; another cache of the hub is another place."""
    asked = json.dumps([name.repos, name.revision, dataclasses.asdict(wanted), str(default_cache())])
    return _folder() / f"{hashlib.sha256(asked.encode()).hexdigest()[:24]}.json"
