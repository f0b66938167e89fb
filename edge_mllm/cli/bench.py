"""``edge-mllm bench`` and ``edge-mllm bench report``: what an answer costs on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_mllm.cli.options.given import refuse_unused
from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.terminal.bench_output import Shown, Wanted, write_results
from edge_mllm.cli.terminal.competition import tell_competition, warn_of_competition
from edge_mllm.cli.terminal.errors import plain_errors

if TYPE_CHECKING:
    from edge_mllm.measure.bench.cases import Grid
    from edge_mllm.measure.bench.measure import Plan
    from edge_mllm.measure.bench.result import Case, Result

app = typer.Typer(
    invoke_without_command=True,
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode=None,
    subcommand_metavar="",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Reductions = Annotated[
    list[str] | None, typer.Option(metavar="METHOD[:RATIO]", help="As for run, or none; may be repeated.")
]
PromptWeights = Annotated[
    bool, typer.Option("--prompt-weights/--no-prompt-weights", help="As for run --no-prompt-weights.")
]


@app.callback()
@plain_errors
@grouped
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
    wanted: Wanted,
) -> None:
    """Measure every stage of an answer: load, picture, tower, prefill, first token, decode; memory and energy too.

    Options that take a list make a grid: every combination is measured in a process of its own. Every answer is about
    another picture and has a fixed length, so that neither caches nor the model's mood change the figures.
    """
    if context.invoked_subcommand is not None:
        refuse_unused(context, (), f"'{context.invoked_subcommand}', which takes its options after its name,")
        return
    from edge_mllm.errors import SettingError
    from edge_mllm.measure.bench.cases import Grid, parse_size
    from edge_mllm.measure.bench.measure import Plan

    if compare and (model or engine or mmproj):
        raise SettingError("--compare names its own models and engines; leave out --model, --engine and --mmproj")
    if wanted.submit is not None:
        from edge_mllm.measure.bench.submit import check_repeat

        check_repeat(repeat)
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
        result = _run_pairs(_in_pairs(grid, compare), plan)
    else:
        result = _run_grid(_in_grid(grid, model, engine, mmproj), plan)
    tell_competition(max((run.other_cores or 0.0 for run in result.runs), default=0.0))
    write_results([result], wanted)


@app.command()
@plain_errors
@grouped
def report(
    files: Annotated[list[Path], typer.Argument(help="Result files of edge-mllm bench -o.")],
    *,
    wanted: Shown,
) -> None:
    """Merge result files into one table."""
    from edge_mllm.measure.bench.result import read_result

    write_results([read_result(file) for file in files], wanted)


def _in_grid(
    grid: Callable[..., Grid], model: list[str] | None, engine: list[str] | None, mmproj: str | None
) -> list[Case]:
    """Every combination of models, engines and what the grid has."""
    places = [_found(name) for name in model] if model else [_found(None)]
    towers = {tower for _, tower in places if tower is not None}
    mmproj = mmproj or (towers.pop() if len(towers) == 1 else None)
    return grid(models=[path for path, _ in places], engines=_items(engine) or (None,), mmproj=mmproj).cases()


def _begin(cases: Sequence[Case]) -> None:
    """See that models are there, then whether other programs compete, before minutes are spent.

    Raises:
        ModelNotFoundError: A model is not there.
    """
    from edge_mllm.errors import ModelNotFoundError

    for case in cases:
        if not Path(case.model).exists():
            raise ModelNotFoundError(case.model)
    warn_of_competition()


def _run_grid(cases: list[Case], plan: Plan) -> Result:
    from edge_mllm.measure.bench.measure import run_grid

    _begin(cases)
    with _progress() as tell:
        return run_grid(cases, plan, tell)


def _in_pairs(grid: Callable[..., Grid], compare: tuple[str, str]) -> list[tuple[Case, Case]]:
    """The cases of both sides of a comparison, side by side."""
    sides = ((*_found(path), name) for path, name in map(_split, compare))
    first, second = (grid(models=[path], engines=[name], mmproj=tower).cases() for path, tower, name in sides)
    return list(zip(first, second, strict=True))


def _run_pairs(pairs: list[tuple[Case, Case]], plan: Plan) -> Result:
    from edge_mllm.measure.bench.measure import run_pairs

    _begin([case for pair in pairs for case in pair])
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


def _found(name: str | None) -> tuple[str, str | None]:
    """Path of a model and of its tower, where it was fetched with one."""
    from edge_mllm.session.files import find_model

    place = find_model(name)
    return str(place.path), None if place.mmproj is None else str(place.mmproj)
