"""``edge-mllm run``: one prompt, one answer, and what it cost."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_mllm.cli import _options as options
from edge_mllm.cli._costs import cost_line
from edge_mllm.cli._errors import plain_errors
from edge_mllm.cli._groups import grouped

if TYPE_CHECKING:
    from edge_mllm.answer import Answer, Piece

_log = logging.getLogger(__name__)


@plain_errors
@grouped
def run(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to ask.")],
    *,
    loading: options.ModelOptions,
    image: options.ImagesOption = None,
    as_json: options.JsonOption = False,
    system: options.SystemOption = None,
    answering: options.AnswerOptions,
) -> None:
    """Answer a prompt about pictures, or about none.

    The answer streams to standard output; one line of costs goes to standard error.
    """
    request = answering.request()
    tuned = _tuned(loading)
    with loading.load(request.limits.max_memory, **tuned) as loaded:
        _show(loaded.respond(prompt, list(image or ()), request, system=system), as_json, tuned)


def _tuned(loading: options.ModelOptions) -> dict[str, Any]:
    """Settings that ``edge-mllm tune`` kept; nothing where there are none or options say otherwise."""
    from edge_mllm.errors import ModelNotFoundError
    from edge_mllm.session import starter_bundle
    from edge_mllm.tune.kept import applicable

    path = starter_bundle() if loading.model is None else loading.model
    try:
        found = applicable(path, loading.engine, loading.threads, loading.precision)
    except ModelNotFoundError:  # load says it better
        return {}
    if found is None:
        return {}
    typed = {"vision_engine": loading.vision_engine, "kv_type": loading.kv_type}
    chosen = {name: value for name, value in found.options().items() if typed.get(name) is None}
    _log.info("settings of edge-mllm tune: %s", chosen)
    return chosen


def _show(pieces: Iterator[Piece], as_json: bool, tuned: dict[str, Any]) -> None:
    if as_json:
        print_json(pieces, {"tuned": tuned} if tuned else {})
    else:
        typer.echo(cost_line(print_stream(pieces)), err=True)


def print_json(pieces: Iterator[Piece], more: dict[str, Any] | None = None) -> None:
    """Print the finished answer as one JSON object, with further fields."""
    from edge_mllm.answer import last_answer

    answer = last_answer(pieces)
    sys.stdout.write(json.dumps(answer.to_dict() | (more or {}), ensure_ascii=False, indent=2) + "\n")
    sys.stdout.flush()


def print_stream(pieces: Iterator[Piece]) -> Answer:
    """Print text as it comes; end with a line end."""
    answer = None
    for piece in pieces:
        sys.stdout.write(piece.text)
        sys.stdout.flush()
        answer = piece.answer
    assert answer is not None  # noqa: S101  (the last piece carries it)
    if not answer.text.endswith("\n"):
        sys.stdout.write("\n")
        sys.stdout.flush()
    return answer
