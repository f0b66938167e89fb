"""``edge-mllm cache``: what this project and the hub's library keep on this machine."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.options.output import JsonOptions
from edge_mllm.cli.terminal.errors import plain_errors


class CacheName(StrEnum):
    """What may be cleared."""

    models = "models"
    settings = "settings"
    graphs = "graphs"
    all = "all"


@dataclass(frozen=True)
class Kept:
    """One folder of what is kept."""

    name: str
    about: str
    path: str
    files: int
    bytes: int


@plain_errors
@grouped
def cache(
    *,
    clear: Annotated[
        CacheName | None,
        typer.Option(
            "--clear",
            help="Remove models that were fetched by name, settings that were measured for this machine, kept graphs, "
            "or all of them.",
        ),
    ] = None,
    keep_graphs: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Keep a bundle's ONNX graphs as ONNX Runtime arranges them on this machine: later loads map them, "
            "which is faster and shares their memory among processes. They take more than twice their size.",
        ),
    ] = None,
    output: JsonOptions,
) -> None:
    """Tell where files lie, how large they are, and clear them; bundles that you made and visual caches stay."""
    if clear is not None:
        freed = _clear(clear)
        if not output.wanted:
            typer.echo(f"{freed / 1e6:.1f} MB freed", err=True)
    if keep_graphs is not None:
        _keep(keep_graphs)
    rows = [_models(), _settings(), _graphs()]
    if output.wanted:
        output.write([asdict(row) for row in rows])
        return
    from edge_mllm.cli.terminal.console import wide_console
    from edge_mllm.cli.terminal.tables import show_table

    shown = [(row.name, row.about, str(row.files), f"{row.bytes / 1e6:.1f}", row.path) for row in rows]
    show_table(wide_console(), ("name", "what it is", "files", "MB", "path"), shown, right=("files", "MB"))


def _models() -> Kept:
    """What was fetched by name lies in huggingface_hub's cache, beside what other programs fetched."""
    from edge_mllm.hub.fetch import default_cache
    from edge_mllm.hub.resolve import records

    files = {each.path_of(name).resolve() for each in records() for name in each.files}
    total = sum(file.stat().st_size for file in files)
    return Kept("models", "fetched by name; HF_HOME moves it", str(default_cache()), len(files), total)


def _keep(model: str) -> None:
    from edge_mllm.session.files import find_model
    from edge_mllm.session.keep_graphs import keep_graphs

    for name, size in keep_graphs(
        find_model(model).path, lambda name: typer.echo(f"arranging {name}", err=True)
    ).items():
        typer.echo(f"{name}: {size / 1e6:.1f} MB kept", err=True)


def _graphs() -> Kept:
    from edge_mllm.machine.kept_graphs import graphs_folder

    found = [file for file in graphs_folder().rglob("*") if file.is_file()]
    about = "ONNX graphs as they are arranged on this machine"
    return Kept("graphs", about, str(graphs_folder()), len(found), sum(file.stat().st_size for file in found))


def _settings() -> Kept:
    from edge_mllm.machine.folders import cache_folder

    found = [file for folder in _folders() for file in folder.rglob("*") if file.is_file()]
    about = "settings, speeds and hashes found on this machine; EDGE_MLLM_CACHE moves it"
    return Kept("settings", about, str(cache_folder()), len(found), sum(file.stat().st_size for file in found))


def _folders() -> list[Path]:
    """Those of measured settings and compared hashes; what else lies beside them may be somebody's."""
    from edge_mllm.machine.folders import cache_folder

    patterns = ("tuned", "devices-*", "checked")
    return [folder for pattern in patterns for folder in cache_folder().glob(pattern) if folder.is_dir()]


def _clear(what: CacheName) -> int:
    """Remove, and return the bytes that are free now."""
    from edge_mllm.hub.resolve import forget, records
    from edge_mllm.machine.kept_graphs import graphs_folder

    freed = 0
    if what in (CacheName.models, CacheName.all):
        freed += sum(forget(each) for each in records())
    if what in (CacheName.graphs, CacheName.all):
        freed += _graphs().bytes
        shutil.rmtree(graphs_folder(), ignore_errors=True)
    if what in (CacheName.settings, CacheName.all):
        freed += _settings().bytes
        for folder in _folders():
            shutil.rmtree(folder)
    return freed
