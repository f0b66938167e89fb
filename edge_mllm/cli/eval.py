"""``edge-mllm eval``: score a model on a benchmark file, and compare two results."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_mllm.cli.options.given import refuse_unused
from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.options.model import EngineOption, ModelOption, ThreadsOption
from edge_mllm.cli.options.output import JsonOptions
from edge_mllm.cli.terminal.errors import fail, plain_errors
from edge_mllm.errors import ExtraMissingError, SettingError

if TYPE_CHECKING:
    from edge_mllm.measure.eval import Answerer, RunSettings, Task

COMPARE = "compare"


@plain_errors
@grouped
def evaluate(
    context: typer.Context,
    task: Annotated[
        str, typer.Argument(help="A task file or folder (.tsv, .csv, .parquet, .json, .jsonl), or the word 'compare'.")
    ],
    results: Annotated[
        list[Path] | None, typer.Argument(help="With 'compare': two result folders, the one to compare with first.")
    ] = None,
    *,
    model: ModelOption = None,
    engine: EngineOption = None,
    reference: Annotated[
        str | None, typer.Option(help="Evaluate a checkpoint itself, in transformers, instead of a bundle.")
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(
            help="choice, choice_logprob, yes_no, contains, contains_formula, exact, verbatim, anls, relaxed, number, "
            "objects; by default what the rows look like."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask only so many questions, drawn with --seed.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample, and of the bootstrap in 'compare'.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 64,
    suffix: Annotated[str, typer.Option(help="A line added to every prompt.")] = "",
    images: Annotated[Path | None, typer.Option(help="A further folder to look for pictures in.")] = None,
    threads: ThreadsOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; an interrupted run there goes on.")] = None,
    output: JsonOptions,
) -> None:
    """Ask a model every question of a benchmark file and score the answers.

    Published layouts are recognised by their columns: VLMEvalKit's TSV (MME, MMBench, SEED-Bench, HR-Bench, OCRBench,
    MME-RealWorld and others), parquet as Hugging Face datasets write it (MathVista, ...), and the sets' own JSON or CSV
    with a folder of pictures (SEED-Bench, V*Bench, OCRBench, AMBER, MMVP, Q-Bench, ...). 'edge-mllm eval compare A B'
    tells whether two results differ by more than chance.
    """
    if task == COMPARE:
        refuse_unused(context, ("seed", "as_json", "json_indent"), COMPARE)
        _compare(results or [], seed, output)
        return
    if results:
        raise SettingError(f"one task at a time; '{results[0]}' is too much (two results: edge-mllm eval compare A B)")
    from edge_mllm.measure.eval import RunSettings, read_task

    questions = read_task(task, images)
    settings = RunSettings(scorer=scorer, max_new_tokens=max_new_tokens, suffix=suffix, limit=limit, seed=seed)
    answerer = _answerer(model, engine, reference, threads)
    folder = out or Path("eval-results") / _slug(questions.name, answerer.name, answerer.engine)
    _run(questions, answerer, settings, folder, output)


def _answerer(model: Path | None, engine: str | None, reference: str | None, threads: int | None) -> Answerer:
    if reference is None:
        from edge_mllm.measure.eval.bundle_answerer import BundleAnswerer
        from edge_mllm.session.load import load

        return BundleAnswerer(load(model, engine=engine, threads=threads))
    if model is not None or engine is not None:
        raise SettingError("--reference evaluates a checkpoint in transformers; leave --model and --engine out")
    try:
        from edge_mllm_export.reference.answerer import ReferenceAnswerer

        return ReferenceAnswerer(reference, threads=threads)
    except ModuleNotFoundError as error:
        raise ExtraMissingError("export", error.name or "transformers") from error


def _run(task: Task, answerer: Answerer, settings: RunSettings, folder: Path, output: JsonOptions) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from edge_mllm.measure.eval import run_task, summarise, write_report
    from edge_mllm.measure.eval.report import headline

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(task.name, total=None)

        def show(done: int, total: int, score: float) -> None:
            progress.update(bar, completed=done, total=total, description=f"{task.name} {100 * score:.1f} %")

        summary = summarise(run_task(task, answerer, settings, folder, show))
    paths = write_report(summary, folder)
    if output.wanted:
        output.write(summary)
    else:
        print(f"{task.name}, {answerer.name} ({answerer.engine}): {headline(summary)}")
        print(f"Report: {paths[1]}")
    if not summary["overall"]["questions"]:
        fail("no question counted, so there is no score; the report names what is wrong with each")


def _compare(results: list[Path], seed: int, output: JsonOptions) -> None:
    from edge_mllm.measure.eval import compare_files

    if len(results) != 2:
        raise SettingError(f"compare takes two results, got {len(results)}: edge-mllm eval compare A B")
    comparison = compare_files(*results, seed=seed)
    if output.wanted:
        output.write(dataclasses.asdict(comparison) | {"line": comparison.line})
    else:
        print(comparison.line)


def _slug(*names: str) -> str:
    return "--".join(re.sub(r"[^\w.-]+", "-", name) for name in names)
