"""``edge-mllm bench`` and ``edge-mllm bench report``: what an answer costs on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_mllm.cli._errors import plain_errors
from edge_mllm.cli.bench_output import Wanted, write_results

if TYPE_CHECKING:
    from edge_mllm.bench.measure import Plan
    from edge_mllm.bench.result import Case, Result

app = typer.Typer(
    invoke_without_command=True,
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode=None,
    subcommand_metavar="",
)

JsonFlag = Annotated[bool, typer.Option("--json", help="The result file on standard output.")]
CsvFlag = Annotated[bool, typer.Option("--csv", help="One line per run on standard output.")]
MdFlag = Annotated[bool, typer.Option("--md", help="Markdown tables on standard output.")]
PlotFile = Annotated[Path | None, typer.Option("--plot", help="Where the time went, as .png or .svg.")]
Reductions = Annotated[
    list[str] | None, typer.Option(metavar="METHOD[:RATIO]", help="As for run, or none; may be repeated.")
]
PromptWeights = Annotated[
    bool, typer.Option("--prompt-weights/--no-prompt-weights", help="As for run --no-prompt-weights.")
]
OutFile = Annotated[Path | None, typer.Option("-o", "--out", help="Write the result file there.")]


@app.callback()
@plain_errors
def bench(
    context: typer.Context,
    *,
    model: Annotated[list[str] | None, typer.Option("-m", "--model", help="As for run -m; may be repeated.")] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two bundles, answers in turns; MODEL@onnx or MODEL@gguf names an engine.", metavar="A B"),
    ] = None,
    engine: Annotated[list[str] | None, typer.Option(help="onnx or gguf; may be repeated.")] = None,
    threads: Annotated[list[str] | None, typer.Option(help="Such as 1,2,4; may be repeated.")] = None,
    image_size: Annotated[list[str] | None, typer.Option(help="WIDTHxHEIGHT; may be repeated. [1024x768]")] = None,
    images: Annotated[list[str] | None, typer.Option(help="Pictures per question; 0 for text alone. [1]")] = None,
    prompt_tokens: Annotated[list[str] | None, typer.Option(help="Length of the question. [16]")] = None,
    answer_tokens: Annotated[list[str] | None, typer.Option(help="Length of the answer. [64]")] = None,
    image_reduction: Reductions = None,
    mmproj: Annotated[str | None, typer.Option(metavar="FILE", help="The vision tower of a GGUF file.")] = None,
    prompt_lookup: Annotated[int, typer.Option(metavar="N", min=0, help="As for run --prompt-lookup.")] = 0,
    prompt_weights: PromptWeights = True,
    repeat: Annotated[int, typer.Option(min=1, help="Measured answers per case.")] = 5,
    warmup: Annotated[int, typer.Option(min=0, help="Answers before them that do not count.")] = 1,
    loads: Annotated[int, typer.Option(min=1, help="Cold and warm loads per case.")] = 2,
    as_json: JsonFlag = False,
    as_csv: CsvFlag = False,
    as_md: MdFlag = False,
    plot: PlotFile = None,
    out: OutFile = None,
) -> None:
    """Measure every stage of an answer: load, picture, tower, prefill, first token, decode; memory and energy too.

    Options that take a list make a grid: every combination is measured in a process of its own. Every answer is about
    another picture and has a fixed length, so that neither caches nor the model's mood change the figures.
    """
    if context.invoked_subcommand is not None:
        return
    from edge_mllm.bench.cases import Grid, parse_size
    from edge_mllm.bench.measure import Plan
    from edge_mllm.errors import SettingError

    wanted = Wanted(as_json=as_json, as_csv=as_csv, as_md=as_md, plot=plot, out=out)
    if compare and (model or engine or mmproj):
        raise SettingError("--compare names its own models and engines; leave out --model, --engine and --mmproj")
    grid = partial(
        Grid,
        threads=_numbers("--threads", threads) or (None,),
        image_sizes=[parse_size(text) for text in _items(image_size)] or [(1024, 768)],
        images=_numbers("--images", images) or (1,),
        prompt_tokens=_numbers("--prompt-tokens", prompt_tokens) or (16,),
        answer_tokens=_numbers("--answer-tokens", answer_tokens) or (64,),
        prompt_lookup=prompt_lookup,
        prompt_weights=prompt_weights,
        reductions=[None if text == "none" else text for text in _items(image_reduction)] or (None,),
    )
    plan = Plan(warmup=warmup, repeat=repeat, loads=loads)
    if compare:
        sides = [grid(models=[path], engines=[name]).cases() for path, name in map(_split, compare)]
        result = _run_pairs(list(zip(*sides, strict=True)), plan)
    else:
        cases = grid(models=model or [_starter()], engines=_items(engine) or (None,), mmproj=mmproj).cases()
        result = _run_grid(cases, plan)
    write_results([result], wanted)


@app.command()
@plain_errors
def report(
    files: Annotated[list[Path], typer.Argument(help="Result files of edge-mllm bench -o.")],
    *,
    as_json: JsonFlag = False,
    as_csv: CsvFlag = False,
    as_md: MdFlag = False,
    plot: PlotFile = None,
) -> None:
    """Merge result files into one table."""
    from edge_mllm.bench.result import read_result

    write_results([read_result(file) for file in files], Wanted(as_json, as_csv, as_md, plot))


def _run_grid(cases: list[Case], plan: Plan) -> Result:
    from edge_mllm.bench.measure import run_grid

    with _progress() as tell:
        return run_grid(cases, plan, tell)


def _run_pairs(pairs: list[tuple[Case, Case]], plan: Plan) -> Result:
    from edge_mllm.bench.measure import run_pairs

    with _progress() as tell:
        return run_pairs(pairs, plan, tell)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A status line on a terminal, nothing elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting") as status:
        yield lambda text: status.update(text)


def _items(values: list[str] | None) -> list[str]:
    """Repeated options and commas alike."""
    return [item.strip() for value in values or () for item in value.split(",") if item.strip()]


def _numbers(option: str, values: list[str] | None) -> tuple[int, ...]:
    from edge_mllm.errors import SettingError

    items = _items(values)
    for item in items:
        if not item.isdigit():
            raise SettingError(f"{option} takes whole numbers such as 1,2,4; got '{item}'")
    return tuple(int(item) for item in items)


def _split(text: str) -> tuple[str, str | None]:
    """``MODEL@engine``; any other @ belongs to the path."""
    path, at, engine = text.rpartition("@")
    return (path, engine) if at and engine in ("onnx", "gguf") else (text, None)


def _starter() -> str:
    from edge_mllm.session import starter_bundle

    return str(starter_bundle())
