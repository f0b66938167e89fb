"""``edge-mllm chat``: a conversation in the terminal."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edge_mllm.cli import _options as options
from edge_mllm.cli._costs import cost_line
from edge_mllm.cli._errors import plain_errors
from edge_mllm.cli.run import print_stream

if TYPE_CHECKING:
    from edge_mllm.chat import Chat
    from edge_mllm.request import Request
    from edge_mllm.session import Model

_HELP = "/image PATH adds a picture to the next question, /quit ends (so does Ctrl-D); Ctrl-C stops an answer"


@plain_errors
def chat(
    *,
    model: options.ModelOption = None,
    image: options.ImagesOption = None,
    engine: options.EngineOption = None,
    max_new_tokens: options.MaxNewTokensOption = 512,
    temperature: options.TemperatureOption = 0.0,
    top_p: options.TopPOption = 1.0,
    repetition_penalty: options.RepetitionOption = 1.0,
    seed: options.SeedOption = None,
    system: options.SystemOption = None,
    threads: options.ThreadsOption = None,
    n_ctx: options.ContextOption = None,
    kv_type: options.KVTypeOption = None,
    detail: options.DetailOption = options.DetailName.auto,
    max_image_tokens: options.MaxImageTokensOption = None,
    max_memory: options.MaxMemoryOption = None,
    max_ttft: options.MaxTtftOption = None,
    image_reduction: options.ReductionOption = None,
    cache_dir: options.CacheDirOption = None,
    low_memory: options.LowMemoryOption = False,
    chat_file: options.ChatFileOption = None,
    json_schema: options.JsonSchemaOption = None,
    prompt_lookup: options.PromptLookupOption = 0,
    precision: options.PrecisionOption = None,
    mmproj: options.MmprojOption = None,
    vision_engine: options.VisionEngineOption = options.VisionEngineName.ort,
) -> None:
    """Talk with a model about pictures; later questions reuse what was computed for earlier ones."""
    from edge_mllm import SamplingOptions, load
    from edge_mllm.budget import image_budget
    from edge_mllm.request import Request

    sampling = SamplingOptions(temperature=temperature, top_p=top_p, repetition_penalty=repetition_penalty, seed=seed)
    request = Request(
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        budget=image_budget(detail.value, max_image_tokens, image_reduction),
        limits=options.read_limits(max_memory, max_ttft),
        json_schema=options.read_schema(json_schema),
        prompt_lookup=prompt_lookup,
    )
    files: dict[str, Any] = {"precision": precision, "mmproj": mmproj, "cache_dir": cache_dir}
    with load(
        model,
        engine=engine,
        threads=threads,
        n_ctx=n_ctx,
        kv_type=options.kv_type_of(kv_type),
        low_memory=low_memory,
        **files,
        vision_engine=vision_engine.value,
        max_memory=request.limits.max_memory,
    ) as loaded:
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
