"""``edge-mllm chat``: a conversation in the terminal."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_mllm.cli import _options as options
from edge_mllm.cli._costs import cost_line
from edge_mllm.cli._errors import plain_errors
from edge_mllm.cli._groups import grouped
from edge_mllm.cli.run import print_stream

if TYPE_CHECKING:
    from edge_mllm.chat import Chat
    from edge_mllm.request import Request
    from edge_mllm.session import Model

_HELP = "/image PATH adds a picture to the next question, /quit ends (so does Ctrl-D); Ctrl-C stops an answer"


@dataclass(frozen=True, kw_only=True)
class _ChatAnswerOptions(options.AnswerOptions):
    """As for ``run``; turns may be longer."""

    max_new_tokens: options.MaxNewTokensOption = 512


@plain_errors
@grouped
def chat(
    *,
    loading: options.ModelOptions,
    image: options.ImagesOption = None,
    system: options.SystemOption = None,
    chat_file: Annotated[
        Path | None,
        typer.Option(
            "--chat-file",
            metavar="FILE",
            help="Go on with the conversation in FILE where there is one, and keep it there at the end.",
        ),
    ] = None,
    answering: _ChatAnswerOptions,
) -> None:
    """Talk with a model about pictures; later questions reuse what was computed for earlier ones."""
    request = answering.request()
    with loading.load(request.limits.max_memory, lasting=True) as loaded:
        conversation = _begin(loaded, chat_file, system)
        try:
            _talk(conversation, list(image or ()), request, _preparing(loaded, request))
        finally:  # Ctrl-C at the prompt ends the talk, and must not lose it
            if chat_file is not None:
                conversation.save(chat_file)


def _preparing(model: Model, request: Request) -> Callable[[list[Path]], None]:
    """What encodes pictures while the question is typed."""

    def prepare(pictures: list[Path]) -> None:
        budget = request.budget
        if not request.limits.given:  # with limits, how finely they may be tiled depends on the question
            model.prepare(
                *pictures,
                detail=budget.detail,
                max_image_tokens=budget.max_image_tokens,
                reduction=budget.reduction,
            )

    return prepare


def _begin(model: Model, chat_file: Path | None, system: str | None) -> Chat:
    """A conversation: the one in the file where there is one, else a new one."""
    if chat_file is not None:
        model.binding()  # says now, and not after a long talk, where a chat cannot be saved
    if sys.stdin.isatty():
        typer.echo(f"{model.name} on {model.engine}: {_HELP}", err=True)
    if chat_file is not None and chat_file.exists():
        return model.load_chat(chat_file)
    return model.chat(system=system)


def _talk(conversation: Chat, pictures: list[Path], request: Request, prepare: Callable[[list[Path]], None]) -> None:
    """Read lines and answer them until the input ends. Pictures are encoded while the question is typed."""
    waiting = pictures
    if waiting:
        prepare(waiting)
    while (line := _read_line()) is not None:
        if line == "/quit":
            return
        if line.startswith("/image"):
            waiting += _added_pictures(line)
            prepare(waiting)
        elif line.startswith("/"):
            typer.echo(_HELP, err=True)
        elif line:
            _answer(conversation, line, waiting, request)
            waiting = []


def _read_line() -> str | None:
    try:
        if sys.stdin.isatty():
            return input("> ").strip()
        line = sys.stdin.readline()
        return line.strip() if line else None
    except EOFError:
        return None


def _added_pictures(line: str) -> list[Path]:
    try:
        found = [Path(word).expanduser() for word in shlex.split(line.removeprefix("/image"))]
    except ValueError as error:
        typer.echo(f"cannot read that: {error}", err=True)
        return []
    for path in found:
        if not path.is_file():
            typer.echo(f"no such file: {path}", err=True)
    return [path for path in found if path.is_file()]


def _answer(conversation: Chat, line: str, pictures: list[Path], request: Request) -> None:
    """Answer one line; an error or Ctrl-C ends the answer, not the conversation."""
    from edge_mllm.errors import EdgeMLLMError

    pieces = None
    try:
        pieces = conversation.stream(line, pictures, request=request)
        typer.echo(cost_line(print_stream(pieces)), err=True)
    except KeyboardInterrupt:
        typer.echo("\nstopped", err=True)
    except EdgeMLLMError as error:
        typer.echo(f"edge-mllm: {error}", err=True)
