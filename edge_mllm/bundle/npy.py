"""Arrays of a bundle in numpy's file format."""

from __future__ import annotations

import tokenize
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_mllm.errors import BundleError

_MAGIC = b"\x93NUMPY"
# numpy's reader evaluates the header's text, and raises whatever that raises.
_FAULTS = (
    OSError, ValueError, EOFError, TypeError, SyntaxError, KeyError, AttributeError, MemoryError, OverflowError,
    RecursionError, tokenize.TokenError,
)  # fmt: skip


def read_array(path: Path, what: str, *, mapped: bool = False) -> npt.NDArray[Any]:
    """Read a .npy file; nothing in it is executed.

    Args:
        path: The file.
        what: What it holds, for the message.
        mapped: Leave it on disk, and read only what is used.

    Raises:
        BundleError: It is damaged, or no .npy file.
    """
    mode: Literal["r"] | None = "r" if mapped else None
    try:
        with path.open("rb") as stream:  # numpy also reads archives and pickles
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise ValueError("it is no .npy file")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found: npt.NDArray[Any] = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (*_FAULTS, Warning) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise BundleError(path.parent, f"{what} in {path.name} cannot be read ({reason})") from error
    return found
