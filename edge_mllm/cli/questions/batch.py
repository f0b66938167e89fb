"""``edge-mllm batch``: many pictures and prompts to a file of answers with their costs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_mllm.cli.options.answer import AnswerOptions, SystemOption, TilingOptions
from edge_mllm.cli.options.given import refuse_unused
from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.options.model import ModelOptions
from edge_mllm.cli.options.output import QuietOption
from edge_mllm.cli.questions.deciding import DecisionOptions
from edge_mllm.cli.terminal.errors import as_typed, fail, plain_errors

if TYPE_CHECKING:
    from edge_mllm.batch.run import Progress, Runner
    from edge_mllm.batch.work import Work

_NAMED = 10
"""Broken rows that are named one by one."""


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Who answers; a group of options."""

    workers: Annotated[
        int, typer.Option(metavar="N", min=1, help="Processes that each answer rows; they share the machine's threads.")
    ] = 1
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Answer on a Ray cluster: its address, or 'local' for one of this machine."
        ),
    ] = None


@plain_errors
@grouped
def batch(
    context: typer.Context,
    source: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="A folder, pictures, a pattern, or rows in .jsonl or .parquet."),
    ],
    *,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="OUT", help="A file in .jsonl or .parquet; a run there goes on.")
    ],
    prompt: Annotated[
        str | None, typer.Option("-p", "--prompt", metavar="TEXT", help="What to ask where a row has no prompt.")
    ] = None,
    decide: Annotated[bool, typer.Option("--decide", help="Decide between options instead of answering.")] = False,
    deciding: DecisionOptions,
    working: WorkerOptions,
    loading: ModelOptions,
    quiet: QuietOption = False,
    system: SystemOption = None,
    answering: AnswerOptions,
) -> None:
    """Answer a question about every picture of a folder, or every row of a file.

    The output has one line for each row, in order, with the answer and what it cost. A run that was broken off goes on
    where it stopped. Rows that cannot be answered are named, get a line with their error, and are passed over.
    """
    from edge_mllm.batch.output import Output, check_place
    from edge_mllm.batch.rows import Defaults
    from edge_mllm.batch.run import run_batch, settings_of, settled
    from edge_mllm.batch.sources import open_source

    _refuse_other_kind(context, decide=decide)
    check_place(out)
    defaults = Defaults(prompt=prompt, system=system, options=deciding.typed())
    rows = open_source(source, defaults, by_place=working.ray is not None)
    work = settled(_work(loading, working, answering, deciding, decide=decide), loading.wanted)
    with Output(out, settings_of(work, defaults)) as output, _shown(rows.name, rows.count, quiet=quiet) as tell:
        ended = run_batch(rows, output, _runner(work, working), tell)
    _tell(ended, out, quiet=quiet)


def _refuse_other_kind(context: typer.Context, *, decide: bool) -> None:
    """Options of answers where rows are decided, and the other way round."""
    own = {field.name for field in fields(DecisionOptions)}
    other = {field.name for field in fields(AnswerOptions)} - {field.name for field in fields(TilingOptions)}
    every = {parameter.name for parameter in context.command.params if parameter.name}
    refuse_unused(context, every - (other if decide else own), "--decide" if decide else "batch without --decide")


def _work(
    loading: ModelOptions,
    working: WorkerOptions,
    answering: AnswerOptions,
    deciding: DecisionOptions,
    *,
    decide: bool,
) -> Work:
    from edge_mllm.batch.work import Work
    from edge_mllm.machine.threads import default_threads

    request = answering.request()
    typed = loading.arguments(request.limits.max_memory) | loading.tuned()
    threads = loading.threads or max(1, (typed.get("threads") or default_threads()) // working.workers)
    return Work(
        model=loading.model,
        loading=typed | {"threads": threads},
        request=None if decide else request,
        decision=deciding.settings(answering.budget()) if decide else None,
        large_pages=loading.large_pages or False,
    )


def _runner(work: Work, working: WorkerOptions) -> Runner:
    if working.ray is not None:
        from edge_mllm.batch.ray_cluster import RayCluster

        return RayCluster(work, working.ray, working.workers)
    if working.workers == 1:
        from edge_mllm.batch.run import InProcess

        return InProcess(work)
    from edge_mllm.batch.pool import Pool

    return Pool(work, working.workers)


@contextlib.contextmanager
def _shown(name: str, count: int, *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """A line on a terminal with rate and time left; on any standard error the first broken rows by name."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from edge_mllm.errors import RowError

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    rate = TextColumn("{task.fields[rate]}")
    with Bar(*columns, rate, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task, named = bar.add_task(name, total=count, rate=""), 0

        def tell(state: Progress) -> None:
            nonlocal named
            error = (state.last or {}).get("error")
            if error is not None and state.last is not None and not quiet and named < _NAMED:
                named += 1
                line = str(RowError(f"row {state.last['id']}: {error}"))  # in one line, whatever its id is
                console.print(f"edge-mllm: {as_typed(line)}")
            shown = bar.tasks[task]
            if state.done == state.before:  # what earlier runs did is no speed of this one
                bar.reset(task, completed=state.done, total=count)
            else:
                bar.update(task, completed=state.done, rate=f"{shown.speed or 0:.2f}/s")

        yield tell


def _tell(ended: Progress, out: Path, *, quiet: bool) -> None:
    if ended.broken == ended.done:
        fail(f"no row was answered; '{out}' says what is wrong with each")
    if not quiet:
        before = f", {ended.before} of them before" if ended.before else ""
        broken = f", {ended.broken} broken" if ended.broken else ""
        typer.echo(f"{out}: {ended.done} rows{before}{broken}", err=True)
