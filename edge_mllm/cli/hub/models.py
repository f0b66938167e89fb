"""``edge-mllm models``: bundles on this machine."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.options.output import JsonOptions
from edge_mllm.cli.terminal.errors import plain_errors

if TYPE_CHECKING:
    from edge_mllm.bundle.files import OpenBundle


@plain_errors
@grouped
def models(
    directory: Annotated[
        list[Path] | None, typer.Argument(metavar="[DIRECTORY]...", help="Where to look; default: here.")
    ] = None,
    *,
    output: JsonOptions,
    recipes: Annotated[bool, typer.Option("--recipes", help="List what export can store parts in.")] = False,
    known: Annotated[
        bool,
        typer.Option(
            "--known", help="List models that have a short name, whether they fit this machine and its expected speed."
        ),
    ] = False,
) -> None:
    """List the starter bundle, what was fetched by name and the bundles in directories; or known names, or recipes."""
    if known:
        _list_known(output)
        return
    if recipes:
        _list_recipes(output)
        return
    rows = [_row(bundle) for bundle in find_bundles(directory or [Path()])] + _fetched_rows()
    if output.wanted:
        output.write(rows)
        return
    if not rows:
        typer.echo("no bundle here; make one with: edge-mllm export SOURCE -o NAME.edge", err=True)
        return
    _show(rows)


def _fetched_rows() -> list[dict[str, Any]]:
    """What was fetched by name."""
    from edge_mllm.hub.resolve import records

    return [
        {
            "name": each.source,
            "path": str(each.path),
            "engines": [each.layout],
            "bytes": each.bytes,
            "licence": each.licence or "see its model card",
            "source": each.repo,
        }
        for each in records()
    ]


def _list_known(output: JsonOptions) -> None:
    """The catalogue, with what fits the memory that is free now."""
    from dataclasses import asdict

    from edge_mllm.cli.terminal.console import wide_console
    from edge_mllm.cli.terminal.tables import show_table, show_text
    from edge_mllm.costs.devices import this_machine
    from edge_mllm.costs.estimate import known_speed
    from edge_mllm.hub.catalogue import entries
    from edge_mllm.machine.memory import available_bytes

    free, device = available_bytes(), this_machine()
    found = [(each, free is None or each.running_bytes <= free, *known_speed(each, device)) for each in entries()]
    if output.wanted:
        output.write(
            [
                asdict(each) | {"fits": fits, "ttft_s": first, "decode_tps": speed, "device": device.source}
                for each, fits, first, speed in found
            ]
        )
        return
    header = (
        "name",
        "parameters",
        "MB on disk",
        "MB running",
        "fits",
        "visual tokens",
        "first token s",
        "tokens/s",
        "licence",
        "run from",
    )
    rows = [
        (
            each.name,
            f"{each.parameters / 1e9:.2f} G",
            f"{each.bundle_bytes / 1e6:.0f}",
            f"{each.running_bytes / 1e6:.0f}",
            "yes" if fits else "no",
            str(each.visual_tokens["640x480"]),
            "" if first is None else f"{first:.1f}",
            "" if speed is None else f"{speed:.0f}",
            each.licence,
            each.gguf or each.onnx or f"export {each.checkpoint}",
        )
        for each, fits, first, speed in found
    ]
    console = wide_console()
    show_table(console, header, rows, right=header[1:4] + header[5:8])
    text = "4 bits with an int8 tower on llama.cpp, one picture of 640x480; speeds: "
    show_text(console, f"{text}{device.processor}, {device.source}")


def _list_recipes(output: JsonOptions) -> None:
    from dataclasses import asdict

    from edge_mllm.bundle.recipes import PUBLISHED_SIZES, RECIPE_LIST, TRUE_BITS
    from edge_mllm.cli.terminal.console import wide_console
    from edge_mllm.cli.terminal.tables import show_table, show_text

    true_bits = [TRUE_BITS.get((entry.component, entry.name)) for entry in RECIPE_LIST]
    if output.wanted:
        shapes = [None if bits is None else dict(zip(PUBLISHED_SIZES, bits, strict=True)) for bits in true_bits]
        output.write([{**asdict(e), "true_bits": found} for e, found in zip(RECIPE_LIST, shapes, strict=True)])
        return
    rows = []
    for entry, bits in zip(RECIPE_LIST, true_bits, strict=True):
        shown = "" if bits is None else " / ".join(f"{value:g}" for value in bits)
        default = "yes" if entry.default else ""
        rows.append((entry.component, entry.name, f"{entry.bits:g}", shown, default, entry.about))
    console = wide_console()
    header = ("part", "recipe", "bits per weight", "true bits", "default", "what it is")
    show_table(console, header, rows, right=header[2:4], wrap=header[-1:])
    sizes = ", ".join(PUBLISHED_SIZES)
    show_text(console, f"true bits: all bytes of the part by its weights, with published decoders of {sizes}")


def find_bundles(directories: list[Path]) -> list[OpenBundle]:
    """The starter bundle and every readable bundle that is one of the directories or lies directly in one.

    A directory that looks like a bundle but cannot be opened is named on standard error.

    Raises:
        ModelNotFoundError: One of the directories does not exist.
    """
    from edge_mllm.errors import EdgeMLLMError, ModelNotFoundError
    from edge_mllm.session.files import open_bundle, starter_bundle

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
        "bytes": spec.bytes,
        "source": spec.source.id,
        "licence": spec.source.licence,
    }


def _show(rows: list[dict[str, Any]]) -> None:
    from edge_mllm.cli.terminal.console import wide_console
    from edge_mllm.cli.terminal.tables import show_table

    header = ("name", "engines", "MB", "licence", "source", "path")
    shown = [
        (row["name"], ", ".join(row["engines"]), f"{row['bytes'] / 1e6:.1f}", *(row[name] for name in header[3:]))
        for row in rows
    ]
    show_table(wide_console(), header, shown, right=("MB",))
