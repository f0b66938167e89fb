"""Contents page of the command line."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from edge_mllm.cli.bench import app as bench
from edge_mllm.cli.chat import chat
from edge_mllm.cli.doctor import doctor
from edge_mllm.cli.eval import evaluate
from edge_mllm.cli.export import export
from edge_mllm.cli.inspect import inspect
from edge_mllm.cli.models import models
from edge_mllm.cli.plan import plan
from edge_mllm.cli.run import run
from edge_mllm.cli.tune import tune

app = typer.Typer(
    name="edge-mllm",
    help="Small multimodal language models on edge devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (export, run, chat, inspect, models, plan, tune, doctor):
    app.command()(command)
app.add_typer(bench, name="bench")
app.command("eval")(evaluate)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("edge-mllm"))
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", help="Log to standard error.")] = False,
    version: Annotated[  # noqa: ARG001  (handled by its callback)
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Small multimodal language models on edge devices."""
    level = logging.DEBUG if verbose else logging.ERROR
    logging.basicConfig(level=level, format="%(name)s: %(message)s", force=True)


def main() -> None:
    """Entry point of the console script."""
    app()
