"""Where a bundle appears: built in a temporary sibling directory, then renamed, so that it is whole or not there."""

from __future__ import annotations

import errno
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mllm.bundle.checked import sha256_of
from edge_mllm.bundle.files import SPEC_FILE, write_spec
from edge_mllm.bundle.spec import BundleSpec, Part
from edge_mllm_export.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EFBIG: "a file got too big"}


@contextmanager
def staged(out: Path, *, force: bool) -> Iterator[Path]:
    """Give a directory to fill; on success it becomes ``out``, on any failure it is deleted.

    Args:
        out: The bundle directory to make.
        force: Replace an existing bundle, after the new one is complete.

    Raises:
        OutputError: ``out`` exists and may not be replaced, its folder cannot be written, or the disk is full.
    """
    check_target(out, force=force)
    staging = _make_staging(out)
    try:
        yield staging
        _take_place(staging, out)
    except OSError as error:
        reason = _FULL.get(error.errno or 0)
        if reason is None:
            raise
        raise OutputError(f"cannot write '{out}': {reason}; nothing was left behind") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_target(out: Path, *, force: bool) -> None:
    """Refuse a target that exists (or, with ``force``, one that is no bundle).

    Raises:
        OutputError: With the reason.
    """
    if not out.exists():
        return
    if not force:
        raise OutputError(f"'{out}' exists; use `force` to replace it or choose another name")
    if not out.is_dir() or (any(out.iterdir()) and not (out / SPEC_FILE).is_file()):
        raise OutputError(f"'{out}' exists and is no bundle, so `force` does not replace it; choose another name")


def _make_staging(out: Path) -> Path:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        name = out.name.removesuffix(".edge")
        return Path(tempfile.mkdtemp(prefix=f"{name}.edge.tmp-", dir=out.parent))
    except OSError as error:
        raise OutputError(f"cannot write into '{out.parent}': {error.strerror}") from error


def _take_place(staging: Path, out: Path) -> None:
    for path in [staging, *staging.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    if not out.exists():
        staging.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f"{out.name}.tmp-old-", dir=out.parent)) / out.name
    out.rename(old)
    try:
        staging.rename(out)
    except OSError:
        old.rename(out)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def describe(path: Path, precision: str) -> Part:
    """Size and SHA-256 of a finished file."""
    return Part(file=path.name, sha256=sha256_of(path), bytes=path.stat().st_size, precision=precision)


def write_manifest(spec: BundleSpec, directory: Path) -> None:
    """Write bundle.json."""
    write_spec(spec, directory / SPEC_FILE)
