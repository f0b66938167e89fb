"""``edge-mllm pull`` and ``edge-mllm rm``: models of the hub on this machine."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.options.model import LayoutOption, PrecisionOption, QuantOption
from edge_mllm.cli.options.output import JsonOptions
from edge_mllm.cli.terminal.errors import plain_errors

if TYPE_CHECKING:
    from edge_mllm.hub.resolve import Fetched, Wanted

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A hub id (org/name[@revision]) or a name of 'edge-mllm models --known'.")
]


@plain_errors
@grouped
def pull(
    name: Name,
    *,
    layout: LayoutOption = None,
    quant: QuantOption = None,
    precision: PrecisionOption = None,
    export: Annotated[
        bool, typer.Option("--export", help="Export where there is a checkpoint alone; needs the extra [export].")
    ] = False,
    output: JsonOptions,
) -> None:
    """Fetch a model, or look whether there is a newer commit of it; run -m NAME then needs no network."""
    from dataclasses import asdict

    from edge_mllm.errors import CheckpointOnlyError, SettingError
    from edge_mllm.hub.resolve import Wanted, resolve

    wanted = Wanted(layout=None if layout is None else layout.value, precision=precision, quant=quant)
    try:
        found = resolve(name, wanted, refresh=True)
    except CheckpointOnlyError:
        if not export:
            raise
        found = _exported(name, wanted)
    if found is None:
        raise SettingError(f"'{name}' is a path or no name of a model; pull takes org/name or a name of the catalogue")
    if output.wanted:
        output.write({**asdict(found), "path": str(found.path), "bytes": found.bytes})
        return
    typer.echo(f"{found.repo} at {found.commit[:12]}: {found.layout}, {found.bytes / 1e6:.1f} MB in {found.path}")


def _exported(name: str, wanted: Wanted) -> Fetched:
    """Export a checkpoint of the hub in a process of its own, whose memory is free afterwards; the name then runs."""
    from edge_mllm.hub.resolve import adopt_export, export_place
    from edge_mllm.session.files import open_bundle

    place = export_place(name)
    place.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "edge_mllm", "export", name.removeprefix("hf:"), "-o", str(place), "--force"]
    code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    if code:
        raise typer.Exit(code)
    return adopt_export(name, wanted, open_bundle(place))


@plain_errors
def rm(name: Name) -> None:
    """Remove what was fetched for a name; bundles that you made stay where they are."""
    from edge_mllm.errors import ModelNotFoundError
    from edge_mllm.hub.resolve import forget, records

    mine = [each for each in records() if name in (each.source, each.repo)]
    if not mine:
        raise ModelNotFoundError(name, "nothing was fetched under this name (edge-mllm models lists what was)")
    freed = sum(forget(each) for each in mine)
    typer.echo(f"{name}: {freed / 1e6:.1f} MB freed")
