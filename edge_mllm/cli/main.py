"""Contents page of the command line."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from edge_mllm.cli.bench import app as bench
from edge_mllm.cli.doctor import doctor
from edge_mllm.cli.eval import evaluate
from edge_mllm.cli.export import export
from edge_mllm.cli.hub.cache import cache
from edge_mllm.cli.hub.models import models
from edge_mllm.cli.hub.pull import pull, rm
from edge_mllm.cli.hub.push import push
from edge_mllm.cli.inspect import inspect
from edge_mllm.cli.plan import plan
from edge_mllm.cli.questions.batch import batch
from edge_mllm.cli.questions.decide import QuestionsCommand, decide
from edge_mllm.cli.run import run
from edge_mllm.cli.serve import serve
from edge_mllm.cli.talk.chat import chat
from edge_mllm.cli.terminal.errors import LogLines
from edge_mllm.cli.terminal.help import SectionedCommand, SectionedGroup
from edge_mllm.cli.terminal.pictures import PicturesCommand
from edge_mllm.cli.terminal.streams import standard_streams
from edge_mllm.cli.tune import tune

NAMES = {evaluate: "eval", bench: "bench"}
"""Of commands that are called otherwise than their function, and of groups."""
KINDS = {run: PicturesCommand, chat: PicturesCommand, decide: QuestionsCommand}
"""Of commands that read their words otherwise."""
HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    name="edge-mllm",
    cls=SectionedGroup,
    help="Small multimodal language models on edge devices.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=HELP,
)
SECTIONS = {
    "Ask": (run, chat, decide, batch, serve),
    "Models": (models, pull, push, rm, export, inspect, cache),
    "Measure": (plan, bench, evaluate, tune, doctor),
}
"""Title in the help -> commands."""
for title, commands in SECTIONS.items():
    for command in commands:
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=NAMES[command], rich_help_panel=title, cls=SectionedGroup)
        else:
            kind = KINDS.get(command, SectionedCommand)
            app.command(NAMES.get(command), cls=kind, rich_help_panel=title)(command)


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
    logging.basicConfig(level=level, format="%(name)s: %(message)s", handlers=[LogLines()], force=True)
    if not verbose:  # a model's licence, and that the hub could not be asked
        logging.getLogger("edge_mllm.hub").setLevel(logging.WARNING)
        logging.getLogger("edge_mllm.tower.placement").setLevel(logging.WARNING)  # that a tower is not on the NPU
        logging.getLogger("edge_mllm.tower.choice").setLevel(logging.WARNING)  # which library was measured to run it


def main() -> None:
    """Run the command line of this process."""
    with standard_streams():
        app()
