"""rknn-toolkit2, Rockchip's compiler and simulator, in an environment of its own: it needs older packages than ours.

``EDGE_MLLM_RKNN_PYTHON`` names a Python that has it. Else one is made, once, in the cache folder: the toolkit by
itself, and what it imports in versions that it runs with; of torch it asks for an old release, and runs with ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edge_mllm.machine.folders import cache_folder
from edge_mllm_export.errors import RknnToolkitError
from edge_mllm_export.job import Announce

VARIABLE = "EDGE_MLLM_RKNN_PYTHON"
TOOLKIT = "rknn-toolkit2"
VERSION = "2.5.0"
"""The release that was tried, which is installed."""
_NEEDS = (
    "numpy<=1.26.4",
    "onnx>=1.16.1,<=1.18.0",
    "onnxruntime<1.24",
    "protobuf>=4.21.6,<=4.25.4",
    "opencv-python-headless<4.12",
    "scipy<1.15",
    "fast-histogram",
    "psutil",
    "ruamel.yaml",
    "tqdm",
    "setuptools<81",  # it imports pkg_resources
)
_ASK = f"from importlib.metadata import version; import rknn.api; print(version('{TOOLKIT}'))"


@dataclass(frozen=True)
class Toolkit:
    """A Python that has the toolkit."""

    python: Path
    version: str


def find_toolkit(announce: Announce = lambda _: None, environment: Mapping[str, str] = os.environ) -> Toolkit:
    """The toolkit that the environment names, the one made before, or one that is made now.

    Args:
        announce: Told before anything is installed.
        environment: Variables.

    Raises:
        RknnToolkitError: The Python that is named has no toolkit that can be imported, or none can be installed.
    """
    given = environment.get(VARIABLE)
    if given:
        return _toolkit(Path(given), f"{VARIABLE} names '{given}'")
    folder = cache_folder() / f"{TOOLKIT}-{VERSION}"
    if not folder.is_dir():
        announce(f"installing {TOOLKIT} {VERSION} in '{folder}', once")
        make_environment(folder)
    return _toolkit(folder / "bin" / "python", f"'{folder}' was made for it")


def make_environment(folder: Path) -> None:
    """Install the toolkit in a new environment; it appears whole or not at all.

    Raises:
        RknnToolkitError: A step failed; the message has the last line of what it said.
    """
    staging = folder.with_name(f"{folder.name}.{os.getpid()}")
    python = str(staging / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        _step([sys.executable, "-m", "venv", str(staging)])
        _step([*install, "--no-deps", f"{TOOLKIT}=={VERSION}"])
        _step([*install, *_NEEDS, f"torch=={metadata.version('torch').partition('+')[0]}"])
        staging.rename(folder)
    except OSError as error:
        raise RknnToolkitError(f"the folder cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _step(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RknnToolkitError(f"'{command[0]}' cannot be started ({error.strerror})") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no reason")
        raise RknnToolkitError(f"it could not be installed ({said.strip()[:300]})")


def _toolkit(python: Path, where: str) -> Toolkit:
    try:
        done = subprocess.run([str(python), "-I", "-c", _ASK], capture_output=True, text=True, check=False)
    except OSError as error:
        raise RknnToolkitError(f"{where}, which cannot be started ({error.strerror})") from error
    if done.returncode != 0:
        lines = done.stderr.split("\n")
        raise RknnToolkitError(f"{where}, which cannot import it ({' '.join(filter(None, lines[-2:]))[:200]})")
    return Toolkit(python, done.stdout.split()[-1])


if __name__ == "__main__":
    make_environment(Path(sys.argv[1]))
