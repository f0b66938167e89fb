"""Which machine, which software and which model a result belongs to. No host name and no user name."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edge_mllm.machine.cpu import Processor, read_processor
from edge_mllm.machine.memory import MEMORY, sizes
from edge_mllm.machine.peaks import Peaks, measure_peaks
from edge_mllm.machine.threads import kernel_text

PACKAGES = ("edge-mllm", "numpy", "onnxruntime", "llama-cpp-python", "tokenizers", "pillow", "openvino")
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Machine:
    """The machine and the software on it."""

    id: str
    """First 12 hex digits over model, cores and flags: the same on two machines of one kind."""
    processor: Processor
    memory_bytes: int
    swap_bytes: int
    cache_bytes: int | None
    """Last-level cache."""
    system: str
    kernel: str
    python: str
    """Empty where another program measured, such as a phone's."""
    versions: dict[str, str]
    commit: str | None
    """Commit of the checkout the program runs from, with ``+`` when files differ from it; None when installed."""
    peaks: Peaks | None


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model as they lie on disk."""

    sha256: str
    """Of a bundle: over its bundle.json, which holds the hashes of its parts; of others: over names and contents."""
    bytes_on_disk: int
    files: dict[str, int]


def fingerprint(*, threads: int | None = None, peaks: bool = True) -> Machine:
    """Describe this machine.

    Args:
        threads: for the peaks; by default the machine's sensible number.
        peaks: False skips the measurement, which takes about a second.
    """
    processor = read_processor()
    memory = sizes(MEMORY)
    total, available = memory.get("MemTotal", _sysconf_memory()), memory.get("MemAvailable", 0)
    buffer = min(256 << 20, max(16 << 20, available // 8))
    count = threads or processor.sensible_threads
    return Machine(
        id=machine_id(processor),
        processor=processor,
        memory_bytes=total,
        swap_bytes=memory.get("SwapTotal", 0),
        cache_bytes=_last_level_cache(),
        system=_system(),
        kernel=platform.release(),
        python=platform.python_version(),
        versions=package_versions(),
        commit=checkout_commit(),
        peaks=measure_peaks(count, buffer_bytes=buffer) if peaks else None,
    )


def model_files(path: Path) -> ModelFiles:
    """Hash and weigh a model: a bundle, another directory of model files, or a single file."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    sizes = {str(p.relative_to(path)) if path.is_dir() else p.name: p.stat().st_size for p in files}
    digest = hashlib.sha256()
    if (path / "bundle.json").is_file():
        digest.update((path / "bundle.json").read_bytes())
    else:
        for file in files:
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
    return ModelFiles(digest.hexdigest(), sum(sizes.values()), sizes)


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide the speed, of those installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def checkout_commit() -> str | None:
    """Commit of the source tree this package lies in, or None."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def machine_id(processor: Processor) -> str:
    """The ``id`` of a machine with this processor."""
    text = "|".join((processor.model, str(processor.logical_cores), " ".join(processor.flags)))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _last_level_cache() -> int | None:
    sizes = []
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = kernel_text(index)
        if text.endswith("K") and text[:-1].isdigit():
            sizes.append(int(text[:-1]) * 1024)
    return max(sizes) if sizes else None


def _sysconf_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _system() -> str:
    if sys.platform != "linux":
        return platform.platform(terse=True)
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return "Linux"
    return release.get("PRETTY_NAME", "Linux")
