"""The libraries that run compiled towers on Rockchip's NPUs: rknn-toolkit-lite2, and the system's librknnrt.so.

librknnrt.so has its version as text in it. A tower is run by the version that it was compiled with: with others the
library refuses it (airockchip/rknn-toolkit2 issues 254 and 281) or ends its process.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edge_mllm.errors import ExtraMissingError
from edge_mllm.machine.npu import NpuError

_NAME, _MODULE = "rknn-toolkit-lite2", "rknnlite"
_FOLDERS = ("usr/lib", "usr/lib64", "usr/lib/aarch64-linux-gnu")
_FILE, _VARIABLE = "librknnrt.so", "LIBRKNNRT_PATH"
_MARK = re.compile(rb"librknnrt version: (\d+\.\d+\.\d+)")


@dataclass(frozen=True)
class RknnLibrary:
    """What is installed on this board."""

    version: str
    """Of rknn-toolkit-lite2."""
    runtime: str
    """Version of librknnrt.so, as ``2.5.0``."""


def rknn_library(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> RknnLibrary:
    """The installed libraries.

    Args:
        root: Where the system's libraries are.
        environment: Variables; ``LIBRKNNRT_PATH`` may name the library's file.

    Raises:
        ExtraMissingError: rknn-toolkit-lite2 is not installed.
        NpuError: It is, but librknnrt.so is not there or tells no version.
    """
    if importlib.util.find_spec(_MODULE) is None:
        raise ExtraMissingError("rknn", _NAME)
    try:
        version = metadata.version(_NAME)
    except metadata.PackageNotFoundError:
        version = "of unknown version"
    given = environment.get(_VARIABLE)
    places = [Path(given)] if given else [root / folder / _FILE for folder in _FOLDERS]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise NpuError(f"{_FILE} is not in {places[0].parent}; it comes with the board's system or Rockchip's rknpu2")
    found = _MARK.search(file.read_bytes())
    if found is None:
        raise NpuError(f"{file} does not tell its version; install another {_FILE}")
    return RknnLibrary(version, found.group(1).decode())
