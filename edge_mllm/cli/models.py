"""``edge-mllm models``: bundles on this machine."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_mllm.cli import _options as options
from edge_mllm.cli._errors import plain_errors

if TYPE_CHECKING:
    from edge_mllm.bundle_files import OpenBundle


@plain_errors
def models(
    directory: Annotated[
        list[Path] | None, typer.Argument(metavar="[DIRECTORY]...", help="Where to look; default: here.")
    ] = None,
    as_json: options.JsonOption = False,
    recipes: Annotated[bool, typer.Option("--recipes", help="List what export can store parts in.")] = False,
) -> None:
    """List the starter bundle and the bundles in directories, or the recipes of export."""
    if recipes:
        _list_recipes(as_json)
        return
    rows = [_row(bundle) for bundle in find_bundles(directory or [Path()])]
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
        return
    if not rows:
        typer.echo("no bundle here; make one with: edge-mllm export SOURCE -o NAME.edge", err=True)
        return
    _show(rows)


def _list_recipes(as_json: bool) -> None:
    from dataclasses import asdict

    from rich.table import Table

    from edge_mllm.cli._console import wide_console
    from edge_mllm.recipes import PUBLISHED_SIZES, RECIPE_LIST, TRUE_BITS

    true_bits = [TRUE_BITS.get((entry.component, entry.name)) for entry in RECIPE_LIST]
    if as_json:
        shapes = [None if bits is None else dict(zip(PUBLISHED_SIZES, bits, strict=True)) for bits in true_bits]
        rows = [{**asdict(entry), "true_bits": found} for entry, found in zip(RECIPE_LIST, shapes, strict=True)]
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("part", "recipe", "bits per weight", "true bits", "default", "what it is"):
        table.add_column(column, justify="right" if "bits" in column else "left")
    for entry, bits in zip(RECIPE_LIST, true_bits, strict=True):
        shown = "" if bits is None else " / ".join(f"{value:g}" for value in bits)
        default = "yes" if entry.default else ""
        table.add_row(entry.component, entry.name, f"{entry.bits:g}", shown, default, entry.about)
    console = wide_console()
    console.print(table)
    console.print(
        f"true bits: all bytes of the part by its weights, with published decoders of {', '.join(PUBLISHED_SIZES)}"
    )


def find_bundles(directories: list[Path]) -> list[OpenBundle]:
    """The starter bundle and every readable bundle that is one of the directories or lies directly in one.

    A directory that looks like a bundle but cannot be opened is named on standard error.

    Raises:
        ModelNotFoundError: One of the directories does not exist.
    """
    from edge_mllm.bundle_files import open_bundle
    from edge_mllm.errors import EdgeMLLMError, ModelNotFoundError
    from edge_mllm.session import starter_bundle

    places: list[Path] = []
    with contextlib.suppress(ModelNotFoundError):  # an installation without it is in order
        places.append(starter_bundle())
    for directory in directories:
        if not directory.is_dir():
            raise ModelNotFoundError(directory)
        places += sorted(spec.parent for spec in [*directory.glob("bundle.json"), *directory.glob("*/bundle.json")])
    found: dict[Path, OpenBundle] = {}
    for place in places:
        try:
            found.setdefault(place.resolve(), open_bundle(place, check_hashes=False))
        except EdgeMLLMError as error:
            typer.echo(f"edge-mllm: {error}", err=True)
    return list(found.values())


def _row(bundle: OpenBundle) -> dict[str, Any]:
    spec = bundle.spec
    return {
        "name": spec.name,
        "path": str(bundle.path),
        "engines": list(spec.engines),
        "bytes": sum(part.bytes for part in spec.parts.values()),
        "source": spec.source.id,
        "licence": spec.source.licence,
    }


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from edge_mllm.cli._console import wide_console

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("name", "engines", "MB", "licence", "source", "path"):
        table.add_column(column, justify="right" if column == "MB" else "left", overflow="fold")
    for row in rows:
        size = f"{row['bytes'] / 1e6:.1f}"
        table.add_row(row["name"], ", ".join(row["engines"]), size, row["licence"], row["source"], row["path"])
    wide_console().print(table)
