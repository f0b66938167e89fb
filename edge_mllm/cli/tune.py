"""``edge-mllm tune``: find the settings that answer soonest on this machine, and keep them for ``run``."""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.options.model import ModelOption
from edge_mllm.cli.options.output import JsonOptions, QuietOption
from edge_mllm.cli.terminal.competition import tell_competition, warn_of_competition
from edge_mllm.cli.terminal.errors import plain_errors

if TYPE_CHECKING:
    from pathlib import Path

    from edge_mllm.costs.kept import Tuned
    from edge_mllm.measure.tune.search import Found, Trial


@plain_errors
@grouped
def tune(
    model: ModelOption = None,
    *,
    seconds: Annotated[float, typer.Option(min=1.0, help="No measurement begins after this time.")] = 110.0,
    output: JsonOptions,
    quiet: QuietOption = False,
) -> None:
    """Search decoder, tower library, threads, tokens and tiles at once for a question about a photo; keep the winner.

    Decoders are those of both engines in a bundle, or all precisions in a directory of published ONNX files; the tower
    of a bundle is tried on OpenVINO too where that is installed and has fast code for it. ``run`` then uses the winner,
    unless an option says otherwise, as long as model, machine and libraries stay the same.
    """
    from edge_mllm.costs.kept import check_room, keep
    from edge_mllm.machine.cpu import read_processor
    from edge_mllm.machine.others import OtherWork
    from edge_mllm.measure.tune.search import search, thread_counts
    from edge_mllm.measure.tune.stages import ModelStages, starting_workload, usable_variants
    from edge_mllm.session.files import find_model

    path = find_model(model).path
    work = starting_workload(path)
    processor = read_processor()
    check_room()
    if not quiet:
        warn_of_competition()
    others = OtherWork()
    found = search(
        ModelStages(path, work),
        usable_variants(path),
        thread_counts(processor.sensible_threads, processor.usable_cores),
        work,
        limit_s=seconds,
        progress=lambda text: None if quiet else typer.echo(text, err=True),
    )
    tuned = _tuned(path, found, others.cores())
    tell_competition(tuned.other_cores)
    place = keep(tuned)
    if output.wanted:
        output.write({"kept": dataclasses.asdict(tuned), "file": str(place), **dataclasses.asdict(found)})
    else:
        _show(found, place)


def _tuned(path: Path, found: Found, other_cores: float | None) -> Tuned:
    from edge_mllm.costs.kept import Tuned, bundle_hash
    from edge_mllm.machine.fingerprint import fingerprint

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
        other_cores=other_cores,
    )


def _show(found: Found, place: Path) -> None:
    from edge_mllm.cli.terminal.console import wide_console
    from edge_mllm.cli.terminal.tables import show_table, show_text

    console = wide_console()
    header = (
        "decoder",
        "tower",
        "threads",
        "tokens at once",
        "tiles at once",
        "ms a tile",
        "prompt tok/s",
        "answer tok/s",
        "seconds",
    )
    trials = sorted(found.trials, key=lambda each: each.seconds)
    show_table(console, header, [_row(trial, found) for trial in trials], right=header[2:])
    for reason in found.refused:
        show_text(console, f"does not run: {reason}")
    if found.best == found.default:
        console.print("the defaults are as good as anything that was tried")
    else:
        console.print(f"{found.best.seconds / found.default.seconds:.2f} of the defaults' time")
    if not found.complete:
        console.print("time ran out before everything was tried; give more with --seconds")
    show_text(console, f"kept in {place}")


def _row(trial: Trial, found: Found) -> tuple[str, ...]:
    tried = trial.settings
    return (
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
