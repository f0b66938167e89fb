"""``edge-mllm inspect``: what is in a bundle."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_mllm.cli import _options as options
from edge_mllm.cli._errors import plain_errors
from edge_mllm.cli._verification import recipe_lines, verification_table

if TYPE_CHECKING:
    from edge_mllm.bundle import BundleSpec
    from edge_mllm.pair.files import PairFiles

_SAMPLE_SIZES = ((1024, 768), (640, 480), (768, 1366), (4000, 3000))
"""Width and height of a photo, a small picture, a phone screen and a camera picture."""
_LONG = 5
"""Most entries of a list that is shown whole."""


@plain_errors
def inspect(
    model: Annotated[Path | None, typer.Argument(metavar="MODEL", help="As for run -m.")] = None,
    as_json: options.JsonOption = False,
    check: Annotated[bool, typer.Option(help="Compare every file with its SHA-256.")] = False,
    precision: options.PrecisionOption = None,
    mmproj: options.MmprojOption = None,
) -> None:
    """Show a bundle: source, licence, parts, tokens per picture, recipe, and how it compares with its checkpoint."""
    from edge_mllm.components import open_files
    from edge_mllm.pair.files import is_gguf, read_pair
    from edge_mllm.session import starter_bundle

    path = starter_bundle() if model is None else model
    if is_gguf(path):
        _show_pair(read_pair(path, mmproj), as_json)
        return
    bundle = open_files(path, check_hashes=check, precision=precision)
    if as_json:
        document = asdict(bundle.spec) | {"tokens_per_picture": tokens_per_picture(bundle.spec)}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return
    _show(bundle.spec, bundle.path)


def tokens_per_picture(spec: BundleSpec) -> dict[str, dict[str, int]]:
    """Tiles and visual tokens that pictures of some sizes become."""
    from edge_mllm.tile_plan import plan_tiles

    counts = {}
    for width, height in _SAMPLE_SIZES:
        plan = plan_tiles(width, height, spec.image.tiler)
        counts[f"{width}x{height}"] = {"tiles": plan.count, "tokens": plan.tokens(spec.vision.tokens_per_tile)}
    return counts


def _show(spec: BundleSpec, path: Path) -> None:
    from rich.table import Table

    from edge_mllm.cli._console import wide_console

    console = wide_console()
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _facts(spec, path).items():
        facts.add_row(name, value)
    console.print(facts)
    parts = Table(box=None, padding=(0, 2, 0, 0), title_justify="left", title="\nparts")
    for column in ("part", "file", "precision"):
        parts.add_column(column)
    parts.add_column("MB", justify="right")
    for name, part in spec.parts.items():
        parts.add_row(name, part.file, part.precision, f"{part.bytes / 1e6:.2f}")
    console.print(parts)
    try:
        console.print("", *recipe_lines(spec), sep="\n")
        found = verification_table(spec.verification) if spec.verification else "\nverification: none was recorded"
        console.print(found)
    except (KeyError, TypeError, ValueError, AttributeError):
        console.print("\nrecipe and verification are of another exporter; --json shows them")


def _rule(name: str, value: object) -> str:
    """One setting of a tiler; of a long list its length alone."""
    return f"{len(value)} {name}" if isinstance(value, tuple) and len(value) > _LONG else f"{name} {value}"


def _facts(spec: BundleSpec, path: Path) -> dict[str, str]:
    tiler = asdict(spec.image.tiler)
    rules = ", ".join(_rule(name, value) for name, value in tiler.items() if name != "kind")
    tokens = ", ".join(
        f"{size}: {count['tokens']} ({count['tiles']} tiles)" for size, count in tokens_per_picture(spec).items()
    )
    weights = " (random weights)" if spec.source.random_weights else ""
    revision = f" at {spec.source.revision}" if spec.source.revision else ""
    decoder = spec.decoder
    return {
        "name": spec.name,
        "path": str(path),
        "source": f"{spec.source.id}{revision}{weights}",
        "family": spec.source.family,
        "licence": spec.source.licence,
        "engines": ", ".join(spec.engines),
        "decoder": f"{decoder.n_layer} layers, width {decoder.n_embd}, {decoder.n_vocab} tokens known, "
        f"context {decoder.context_length}",
        "tiles": f"{spec.vision.tile_width}x{spec.vision.tile_height} pixels, "
        f"{spec.vision.tokens_per_tile} tokens each; {spec.image.tiler.kind} ({rules}), {spec.image.resample}",
        "tokens per picture": tokens,
        "size": f"{sum(part.bytes for part in spec.parts.values()) / 1e6:.2f} MB",
        "made": _made(spec),
    }


def _show_pair(files: PairFiles, as_json: bool) -> None:
    from rich.table import Table

    from edge_mllm.cli._console import wide_console

    places = {"model": str(files.model)} | ({"mmproj": str(files.mmproj)} if files.mmproj else {})
    sizes = {name: f"{Path(place).stat().st_size / 1e6:.2f} MB" for name, place in places.items()}
    if as_json:
        document = {"name": files.name, **places, **files.facts, "decoder": asdict(files.decoder)}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    rows = {"name": files.name, **files.facts, **{name: f"{place}, {sizes[name]}" for name, place in places.items()}}
    if files.mmproj is None:
        rows["pictures"] = "none without --mmproj FILE" + "".join(
            f"; {name} lies beside it" for name in files.neighbours
        )
    for name, value in rows.items():
        facts.add_row(name, value)
    wide_console().print(facts)


def _made(spec: BundleSpec) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in spec.exporter.items())
    return f"{spec.created} with {versions}" if spec.created else "by others; read as it was published"
