"""One progress bar on standard error, on a terminal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Advance = Callable[[int], None]


@contextmanager
def byte_progress(description: str, total: int) -> Iterator[Advance]:
    """Show a bar that counts bytes while the block runs; nothing at all when standard error is no terminal.

    Args:
        description: What is being done.
        total: Bytes in all.

    Yields:
        A function to call with the bytes done since the last call.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)


def bar_class(advance: Advance) -> type[Any]:
    """A tqdm class that shows nothing itself and passes its counts on."""
    from tqdm import tqdm  # type: ignore[import-untyped]  # comes with huggingface_hub

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            advance(int(n or 0))

    return Bar
