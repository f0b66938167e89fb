"""``edge-mllm tune``: find the settings that answer soonest on this machine, and keep them for ``run``."""

from __future__ import annotations

import dataclasses
import datetime
import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from edge_mllm.cli import _options as options
from edge_mllm.cli._errors import plain_errors

if TYPE_CHECKING:
    from pathlib import Path

    from edge_mllm.tune.kept import Tuned
    from edge_mllm.tune.search import Found


@plain_errors
def tune(
    model: options.ModelOption = None,
    *,
    seconds: Annotated[float, typer.Option(min=1.0, help="No measurement begins after this time.")] = 110.0,
    as_json: options.JsonOption = False,
) -> None:
    """Search decoder, tower library, threads, tokens and tiles at once for a question about a photo; keep the winner.

    Decoders are those of both engines in a bundle, or all precisions in a directory of published ONNX files; the tower
    of a bundle is tried on OpenVINO too where that is installed and has fast code for it. ``run`` then uses the winner,
    unless an option says otherwise, as long as model, machine and libraries stay the same.
    """
    from edge_mllm.cpu import read_processor
    from edge_mllm.session import starter_bundle
    from edge_mllm.tune.kept import keep
    from edge_mllm.tune.search import search, thread_counts
    from edge_mllm.tune.stages import ModelStages, starting_workload, usable_variants

    path = starter_bundle() if model is None else model
    work = starting_workload(path)
    processor = read_processor()
    found = search(
        ModelStages(path, work),
        usable_variants(path),
        thread_counts(processor.sensible_threads, processor.usable_cores),
        work,
        limit_s=seconds,
        progress=lambda text: typer.echo(text, err=True),
    )
    tuned = _tuned(path, found)
    place = keep(tuned)
    if as_json:
        report = {"kept": dataclasses.asdict(tuned), "file": str(place), **dataclasses.asdict(found)}
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        _show(found, place)


def _tuned(path: Path, found: Found) -> Tuned:
    from edge_mllm.bench.fingerprint import fingerprint
    from edge_mllm.tune.kept import Tuned, bundle_hash

    machine = fingerprint(peaks=False)
    best = found.best.settings
    return Tuned(
        machine=machine.id,
        bundle=bundle_hash(path),
        engine=best.variant.engine,
        threads=best.threads,
        chunk=best.chunk,
        tile_batch=best.tile_batch,
        vision_engine=best.tower,
        precision=best.variant.precision,
        kv_type=best.variant.kv_type,
        seconds=found.best.seconds,
        default_seconds=found.default.seconds,
        tile_s=found.best.tile_s,
        token_s=found.best.token_s,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=machine.versions,
    )


def _show(found: Found, place: Path) -> None:
    from rich.table import Table

    from edge_mllm.cli._console import wide_console

    console = wide_console()
    table = Table(box=None, padding=(0, 2, 0, 0))
    columns = (
        "decoder",
        "tower",
        "threads",
        "tokens at once",
        "tiles at once",
        "ms a tile",
        "prompt tok/s",
        "answer tok/s",
    )
    for name in (*columns, "seconds"):
        table.add_column(name, justify="left" if name in ("decoder", "tower") else "right")
    for trial in sorted(found.trials, key=lambda each: each.seconds):
        tried = trial.settings
        table.add_row(
            f"{tried.variant}{' *' if trial == found.best else ''}",
            tried.tower,
            str(tried.threads),
            str(tried.chunk),
            str(tried.tile_batch),
            f"{trial.tile_s * 1e3:.1f}",
            f"{1 / trial.token_s:.0f}",
            f"{1 / trial.step_s:.1f}",
            f"{trial.seconds:.2f}",
        )
    console.print(table)
    for reason in found.refused:
        console.print(f"does not run: {reason}", markup=False)
    if found.best == found.default:
        console.print("the defaults are as good as anything that was tried")
    else:
        console.print(f"{found.best.seconds / found.default.seconds:.2f} of the defaults' time")
    if not found.complete:
        console.print("time ran out before everything was tried; give more with --seconds")
    console.print(f"kept in {place}")
