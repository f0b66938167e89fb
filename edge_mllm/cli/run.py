"""``edge-mllm run``: one prompt, one answer, and what it cost."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from edge_mllm.cli.options.answer import AnswerOptions, ImagesOption, SystemOption
from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.options.model import ModelOptions
from edge_mllm.cli.options.output import JsonOptions, QuietOption
from edge_mllm.cli.terminal.costs import cost_line
from edge_mllm.cli.terminal.errors import plain_errors
from edge_mllm.cli.terminal.pictures import read_pictures
from edge_mllm.cli.terminal.waiting import with_progress

if TYPE_CHECKING:
    from edge_mllm.answer.answer import Answer, Piece
    from edge_mllm.answer.request import Request


@plain_errors
@grouped
def run(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to ask.")],
    *,
    loading: ModelOptions,
    image: ImagesOption = None,
    output: JsonOptions,
    quiet: QuietOption = False,
    system: SystemOption = None,
    answering: AnswerOptions,
) -> None:
    """Answer a prompt about pictures, or about none.

    The answer streams to standard output; one line of costs goes to standard error.
    """
    from edge_mllm.answer.answer import last_answer
    from edge_mllm.answer.messages import said

    request = answering.request()
    pictures = read_pictures(image or ())
    tuned = loading.tuned()
    with loading.load(request.limits.max_memory, **tuned) as loaded:
        pieces = with_progress(loaded, loaded.respond(said(prompt, pictures, system, None), request), quiet=quiet)
        if output.wanted:
            output.write(last_answer(pieces).to_dict() | ({"tuned": tuned} if tuned else {}))
        else:
            report(print_stream(pieces), request, quiet=quiet)


def print_stream(pieces: Iterator[Piece]) -> Answer:
    """Print text as it comes, without the space that many models begin with; end with a line end."""
    answer, begun = None, False
    for piece in pieces:
        text = piece.text if begun else piece.text.lstrip()
        begun = begun or bool(text)
        sys.stdout.write(text)
        sys.stdout.flush()
        answer = piece.answer
    assert answer is not None  # noqa: S101  (the last piece carries it)
    if not begun or not answer.text.endswith("\n"):
        sys.stdout.write("\n")
        sys.stdout.flush()
    return answer


def report(answer: Answer, request: Request, *, quiet: bool) -> None:
    """Say on standard error what an answer cost, and at the end what cut it."""
    if not quiet:
        typer.echo(cost_line(answer) + cut_note(answer, request), err=True)


def cut_note(answer: Answer, request: Request) -> str:
    """What cut an answer, and which option allows more; empty where it ended by itself."""
    if answer.finish_reason != "length":
        return ""
    told = answer.usage.completion_tokens
    limit = "--max-new-tokens" if told >= request.max_new_tokens else "--n-ctx, because the context is full"
    return f" | cut after {told} tokens; allow more with {limit}"
