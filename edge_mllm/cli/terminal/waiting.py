"""What a person sees on a terminal before an answer's first word: which tile of a picture is being encoded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

    from edge_mllm.answer.answer import Piece
    from edge_mllm.session.session import Model


def with_progress(model: Model, pieces: Iterator[Piece], *, quiet: bool = False) -> Iterator[Piece]:
    """The pieces, with a line on standard error until the first is there; nothing where that is no terminal."""
    if quiet or not sys.stderr.isatty():
        return pieces
    return _shown(model, pieces)


def _shown(model: Model, pieces: Iterator[Piece]) -> Generator[Piece]:
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

    encoder, spinner = model.pipeline.parts.encoder, Spinner("dots", "reading the question")
    with Live(spinner, console=Console(stderr=True), transient=True) as live:

        def show(done: int, total: int) -> None:
            spinner.update(text="reading the question" if done >= total else f"picture: tile {done + 1} of {total}")
            live.refresh()  # a tile may take less time than there is between two pictures of the spinner

        encoder.progress = show
        try:
            first = next(pieces)
        finally:
            encoder.progress = None
    with closing(_rest(first, pieces)) as rest:
        yield from rest


def _rest(first: Piece, pieces: Iterator[Piece]) -> Generator[Piece]:
    try:
        yield first
        yield from pieces
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
