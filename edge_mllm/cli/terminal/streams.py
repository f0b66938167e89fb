"""The three standard streams, whatever a shell made of them: closed, full, gone, or of another encoding than UTF-8."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

FAILED, BROKEN_PIPE = 1, 141
"""Exit codes; the second as a shell reports a process ended by SIGPIPE."""


class _ClosedOutput(io.TextIOBase):
    """Standard output that was closed before we started: writing fails, as it should, but with a reason."""

    encoding = "utf-8"

    def write(self, _text: str) -> int:
        raise OSError("standard output is closed")


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Make the streams usable; on the way out say what they refused, in one line and with an exit code.

    Raises:
        SystemExit: As the command ended, or with :data:`FAILED` where its output could not be written.
    """
    _open_closed_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that an encoding lacks becomes "?" and no error
            stream.reconfigure(errors="replace")
    code: object = 0
    try:
        yield
    except SystemExit as ended:
        code = ended.code
    except OSError as error:  # of help and version texts; commands catch their own
        code = _refused(error)
    raise SystemExit(_flushed(code))


def tell(message: str, code: int = FAILED) -> int:
    """Print one line on standard error, if there is one, and give the exit code."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"edge-mllm: {message}\n")
        sys.stderr.flush()
    return code


def silence_stdout() -> None:
    """Keep the interpreter from complaining when it flushes at exit what cannot be written."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(devnull, sys.stdout.fileno())


def _open_closed_descriptors() -> None:
    """A descriptor that is closed would be given to the next file that is opened, such as a model."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free one
    if sys.stdin is None:
        sys.stdin = io.StringIO()
    if sys.stdout is None:
        sys.stdout = _ClosedOutput()
    if sys.stderr is None:
        sys.stderr = io.StringIO()


def _refused(error: OSError) -> int:
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    return tell(error.strerror or str(error))


def _flushed(code: object) -> object:
    """Write what is still to be written.

    Returns:
        The code, or another where a command that succeeded could not say so.
    """
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        silence_stdout()
        if code in (0, None):
            return _refused(error) if isinstance(error, OSError) else FAILED
    return code
