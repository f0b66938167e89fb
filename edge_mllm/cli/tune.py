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
    """Search engine, threads and prompt tokens computed at once for a question about a photo; keep the winner.

    ``run`` then uses it, unless an option says otherwise, as long as bundle, machine and libraries stay the same.
    """
    from edge_mllm.bundle_files import open_bundle
    from edge_mllm.cpu import read_processor
    from edge_mllm.tune import search as searching
    from edge_mllm.tune.kept import keep

    path = searching.default_bundle(model)
    bundle = open_bundle(path)
    work = searching.starting_workload(bundle)
    processor = read_processor()
    found = searching.search(
        searching.BundleStages(bundle, searching.sample(), min(work.prompt_tokens, 512)),
        searching.usable_engines(bundle),
        searching.thread_counts(processor.sensible_threads, processor.usable_cores),
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
    return Tuned(
        machine=machine.id,
        bundle=bundle_hash(path),
        engine=found.best.engine,
        threads=found.best.threads,
        chunk=found.best.chunk,
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
    for name in ("engine", "threads", "tokens at once", "ms a tile", "prompt tokens/s", "answer tokens/s", "seconds"):
        table.add_column(name, justify="left" if name == "engine" else "right")
    for trial in sorted(found.trials, key=lambda each: each.seconds):
        mark = " *" if trial == found.best else ""
        table.add_row(
            trial.engine + mark,
            str(trial.threads),
            str(trial.chunk),
            f"{trial.tile_s * 1e3:.1f}",
            f"{1 / trial.token_s:.0f}",
            f"{1 / trial.step_s:.1f}",
            f"{trial.seconds:.2f}",
        )
    console.print(table)
    if found.best == found.default:
        console.print("the defaults are as good as anything that was tried")
    else:
        console.print(f"{found.best.seconds / found.default.seconds:.2f} of the defaults' time")
    if not found.complete:
        console.print("time ran out before everything was tried; give more with --seconds")
    console.print(f"kept in {place}")
