"""``edge-mllm inspect``: what is in a bundle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.options.model import MmprojOption, PrecisionOption
from edge_mllm.cli.options.output import JsonOptions
from edge_mllm.cli.terminal.errors import plain_errors

if TYPE_CHECKING:
    from edge_mllm.bundle.gguf_pair import PairFiles
    from edge_mllm.bundle.spec import BundleSpec, Part

_COMPILERS = {"qnn-htp": "QNN", "rknn": "rknn-toolkit2"}
_LONG = 5
"""Most entries of a list that is shown whole."""


@plain_errors
@grouped
def inspect(
    model: Annotated[Path | None, typer.Argument(metavar="MODEL", help="As for run -m.")] = None,
    *,
    output: JsonOptions,
    check: Annotated[bool, typer.Option(help="Compare every file of a bundle with its SHA-256.")] = False,
    precision: PrecisionOption = None,
    mmproj: MmprojOption = None,
) -> None:
    """Show a bundle: source, licence, parts, tokens per picture, recipe, and how it compares with its checkpoint."""
    from edge_mllm.bundle.files import OpenBundle
    from edge_mllm.bundle.gguf_pair import is_gguf, read_pair
    from edge_mllm.bundle.published.directory import is_published
    from edge_mllm.errors import SettingError
    from edge_mllm.session.files import check_layout, find_model, open_files

    place = find_model(model)
    path, mmproj = place.path, mmproj or place.mmproj
    check_layout(path, precision=precision, mmproj=mmproj)
    if check and (is_gguf(path) or is_published(path)):
        raise SettingError(f"'{path}' is no bundle: nothing says what its files' SHA-256 must be")
    if is_gguf(path):
        _show_pair(read_pair(path, mmproj), output)
        return
    bundle = open_files(path, check_hashes=check, precision=precision)
    if check and isinstance(bundle, OpenBundle):
        for part in (part for tower in bundle.spec.npu for part in tower.files):
            bundle.checked(part)
    if output.wanted:
        from edge_mllm.bundle.spec_json import spec_to_dict
        from edge_mllm.measure.bundle_report import tokens_per_picture

        tokens = tokens_per_picture(bundle.spec)
        output.write({"npu": []} | spec_to_dict(bundle.spec) | {"tokens_per_picture": tokens})
        return
    _show(bundle.spec, bundle.path)


def _show(spec: BundleSpec, path: Path) -> None:
    from edge_mllm.cli.terminal.console import wide_console
    from edge_mllm.cli.terminal.tables import show_facts, show_table, show_text, show_verification
    from edge_mllm.measure.bundle_report import recipe_lines, verification_rows

    console = wide_console()
    show_facts(console, _facts(spec, path))
    parts = [(name, part.file, part.precision, f"{part.bytes / 1e6:.2f}") for name, part in spec.parts.items()]
    show_table(console, ("part", "file", "precision", "MB"), parts, right=("MB",), title="\nparts")
    npu = [
        (
            f"{tower.target} {each.architecture} ({_COMPILERS[tower.target]} {each.sdk})",
            each.binary.file,
            f"{each.binary.bytes / 1e6:.2f}",
        )
        for tower in spec.npu
        for each in tower.contexts
    ]
    graphs = [(f"{tower.target}, {tower.precision}, {tower.tiles} a run", *_size(tower.graph)) for tower in spec.npu]
    if graphs:
        show_table(console, ("NPU", "file", "MB"), graphs + npu, right=("MB",), title="\ntowers for NPUs")
    try:
        recipes = list(recipe_lines(spec))
        rows = list(verification_rows(spec)) if spec.verification else []
    except (KeyError, TypeError, ValueError, AttributeError):
        console.print("\nrecipe and verification are of another exporter; --json shows them")
        return
    console.print()
    show_text(console, "\n".join(recipes))
    if spec.verification:
        show_verification(console, str(spec.verification["reference"]), rows)
    else:
        console.print("\nverification: none was recorded")


def _size(part: Part | None) -> tuple[str, str]:
    """Name and megabytes of a file that need not be there."""
    return ("", "") if part is None else (part.file, f"{part.bytes / 1e6:.2f}")


def _rule(name: str, value: object) -> str:
    """One setting of a tiler; of a long list its length alone."""
    return f"{len(value)} {name}" if isinstance(value, tuple) and len(value) > _LONG else f"{name} {value}"


def _facts(spec: BundleSpec, path: Path) -> dict[str, str]:
    from edge_mllm.measure.bundle_report import tokens_per_picture

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
        "size": f"{spec.bytes / 1e6:.2f} MB",
        "phone": phone(spec),
        "made": _made(spec),
    }


def _show_pair(files: PairFiles, output: JsonOptions) -> None:
    from edge_mllm.cli.terminal.console import wide_console
    from edge_mllm.cli.terminal.tables import show_facts

    places = {"model": str(files.model)} | ({"mmproj": str(files.mmproj)} if files.mmproj else {})
    sizes = {name: f"{Path(place).stat().st_size / 1e6:.2f} MB" for name, place in places.items()}
    if output.wanted:
        output.write({"name": files.name, **places, **files.facts, "decoder": asdict(files.decoder)})
        return
    rows = {"name": files.name, **files.facts, **{name: f"{place}, {sizes[name]}" for name, place in places.items()}}
    if files.mmproj is None:
        rows["pictures"] = "none without --mmproj FILE" + "".join(
            f"; {name} lies beside it" for name in files.neighbours
        )
    show_facts(wide_console(), rows)


def phone(spec: BundleSpec) -> str:
    """Whether the code of android_demo runs it, and what is missing if not."""
    missing = [] if "decoder_onnx" in spec.parts else ["an ONNX decoder"]
    if spec.image.tiler.kind == "adaptive_slices":
        return "no, slices whose sizes are the picture's own are not cut there"
    missing += [] if spec.prompt.turns is not None else ["the chat template as pieces"]
    gaps = spec.recipe.get("decoder_onnx", {}).get("phone_gaps", ())
    if gaps:
        return f"no, ONNX Runtime lacks {', '.join(gaps)} there"
    return "yes" if not missing else f"no, it lacks {' and '.join(missing)}"


def _made(spec: BundleSpec) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in spec.exporter.items())
    return f"{spec.created} with {versions}" if spec.created else "by others; read as it was published"
