"""A bundle's graphs, kept on this machine as ONNX Runtime arranges them here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge_mllm.bundle.files import OpenBundle
from edge_mllm.errors import SettingError
from edge_mllm.machine.kept_graphs import keep_graph
from edge_mllm.machine.ort import session_options
from edge_mllm.session.files import open_files

_GRAPHS = ("decoder_onnx", "prompt_onnx", "vision")


def keep_graphs(path: Path, progress: Callable[[str], None] = lambda _: None) -> dict[str, int]:
    """Keep every graph of a bundle; later loads map them, see :mod:`edge_mllm.machine.kept_graphs`.

    Args:
        path: A bundle.
        progress: Told each file's name before the work on it.

    Returns:
        File name -> bytes that what is kept of it takes.

    Raises:
        EngineError: ONNX Runtime does not load a graph, or there is no room for it.
        SettingError: It is no bundle.
        EdgeMLLMError: As opening the bundle.
    """
    files = open_files(path, check_hashes=True) if path.is_dir() else None
    if not isinstance(files, OpenBundle):
        raise SettingError(f"'{path}' is no bundle, and only a bundle's graphs are kept")
    kept = {}
    for part in _GRAPHS:
        if part in files.spec.parts:
            graph = files.file(part)
            progress(graph.name)
            kept[graph.name] = keep_graph(graph, partial(session_options, None))
    return kept
