"""Graphs as ONNX Runtime arranges them for this machine, kept on disk and mapped from there.

Opening a graph, ONNX Runtime optimises it and packs its weights into an order that suits the processor: memory of each
process's own. A kept graph has both done: weights stay in the file's pages, which several processes share and which the
kernel may drop. What is computed is the same bit for bit. It holds the original weights too, so it takes more than
twice the disk; it belongs to one processor, one version of ONNX Runtime and one state of the files it was made of.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_mllm.errors import EngineError
from edge_mllm.machine.cpu import read_cpuinfo
from edge_mllm.machine.folders import cache_folder, file_identity

_log = logging.getLogger(__name__)
_GRAPH, _WEIGHTS, _SIZES = "graph.onnx", "graph.onnx.data", "sizes.json"
_CPU = ["CPUExecutionProvider"]
_LEAST_BYTES = (1024, (1 << 20) + 1)
"""Smaller initializers stay in the graph: shapes and axes must be there while it is read. ONNX Runtime aligns those
above 1 MiB alone, and what follows a packed one of odd size is not aligned."""
_ALIGNMENT = 64
"""Packed 4-bit weights begin at the next such address in their memory, which must be the same one when it is mapped."""
_PACKED = re.compile(rb"\w\+\d+\|(\d+);\d+;")
"""Place of a packed weight among an initializer's external data: kernel+hash|offset;length;."""
_FORM = 2
"""Of what is kept; graphs of form 1 may have unaligned weights and are not used."""
_GROWTH = 3.0
"""What making one may take on disk, in sizes of its files: original, packed (with scales in 32 bits), and room."""


def graphs_folder() -> Path:
    """Where kept graphs lie."""
    return cache_folder() / "graphs"


def open_graph(graph: Path, options: Any) -> Any:
    """An InferenceSession on the CPU, of the kept graph where there is one.

    Args:
        graph: Its external data lies beside it.
        options: onnxruntime.SessionOptions.

    Raises:
        Exception: ONNX Runtime's own, where it does not load the graph.
    """
    import onnxruntime as ort

    kept = _find(graph)
    if kept is not None:
        level = options.graph_optimization_level
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return ort.InferenceSession(str(kept), options, providers=_CPU)
        except Exception as error:  # onnxruntime raises many unrelated classes
            _log.warning("%s is not used: %s", kept, " ".join(str(error).split())[:200])
            options.graph_optimization_level = level
    return ort.InferenceSession(str(graph), options, providers=_CPU)


def keep_graph(graph: Path, options: Callable[[], Any]) -> int:
    """Keep a graph, in place of what was kept of it for another state of its files; return its bytes on disk.

    Args:
        graph: Its external data lies beside it.
        options: Makes the onnxruntime.SessionOptions that it will be opened with.

    Raises:
        EngineError: ONNX Runtime does not load the graph, or there is no room for it.
    """
    place = _place(graph)
    if _find(graph) is None:
        home = place.parent
        try:
            home.mkdir(parents=True, exist_ok=True)
            needed, free = _GROWTH * sum(file.stat().st_size for file in _files(graph)), shutil.disk_usage(home).free
            if free < needed:
                raise EngineError(
                    f"{graph.name} may take {needed / 1e6:.0f} MB in {home}, where {free / 1e6:.0f} are free"
                )
            with tempfile.TemporaryDirectory(prefix=".", dir=home) as scratch:
                made = Path(scratch) / "made"
                made.mkdir()
                _make(graph, options, made)
                for older in set(home.iterdir()) - {Path(scratch)}:
                    shutil.rmtree(older, ignore_errors=True)
                made.rename(place)
        except OSError as error:
            raise EngineError(f"{graph.name} cannot be kept in {home}: {error.strerror}") from error
    return sum(file.stat().st_size for file in place.iterdir())


def _make(graph: Path, options: Callable[[], Any], folder: Path) -> None:
    """Have ONNX Runtime write it, with fewer tensors apart where packed ones would be read other than packed."""
    for least in _LEAST_BYTES:
        _write(graph, options(), folder, least)
        if _is_aligned(folder / _GRAPH):
            (folder / _SIZES).write_text(json.dumps(_sizes(folder)), "utf-8")
            return
        (folder / _GRAPH).unlink()
        (folder / _WEIGHTS).unlink(missing_ok=True)
    raise EngineError(f"{graph.name} cannot be kept: ONNX Runtime would not read its packed weights as it packed them")


def _write(graph: Path, options: Any, folder: Path, least: int) -> None:
    import onnxruntime as ort

    options.optimized_model_filepath = str(folder / _GRAPH)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", str(least))
    try:
        ort.InferenceSession(str(graph), options, providers=_CPU)
    except Exception as error:  # onnxruntime raises many unrelated classes
        raise EngineError(f"ONNX Runtime cannot keep {graph.name}: {' '.join(str(error).split())[:300]}") from error


def _is_aligned(graph: Path) -> bool:
    """Whether all packed weights lie where they were packed for; the graph names their places in the other file."""
    places = _PACKED.findall(graph.read_bytes())
    return all(int(offset) % _ALIGNMENT == 0 for offset in places)


def _find(graph: Path) -> Path | None:
    """What is kept of a graph as it is now, if all its bytes are there: reading behind a mapped file's end is fatal."""
    if not _home(graph).is_dir():
        return None
    place = _place(graph)
    try:
        whole = json.loads((place / _SIZES).read_text("utf-8")) == _sizes(place)
    except (OSError, ValueError):
        return None
    return place / _GRAPH if whole else None


def _sizes(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in (_GRAPH, _WEIGHTS) if (folder / name).exists()}


def _home(graph: Path) -> Path:
    """The folder for a graph's path."""
    path = hashlib.sha256(str(graph.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    return graphs_folder() / path[:24]


def _place(graph: Path) -> Path:
    """In it the one for the state of its files, for ONNX Runtime's version and for the processor."""
    import onnxruntime as ort

    files = [(file.name, file_identity(file.stat())) for file in _files(graph)]
    info = read_cpuinfo()
    text = repr((_FORM, files, ort.__version__, platform.machine(), info.model, sorted(info.flags)))
    return _home(graph) / hashlib.sha256(text.encode()).hexdigest()[:24]


def _files(graph: Path) -> list[Path]:
    """A graph and what lies beside it under its name: its external data."""
    return sorted(file for file in graph.parent.iterdir() if file.name.startswith(graph.name) and file.is_file())
