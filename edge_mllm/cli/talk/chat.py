"""``edge-mllm chat``: opening a conversation, and keeping it at its end."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_mllm.cli.options.answer import AnswerOptions, ImagesOption, MaxNewTokensOption, SystemOption
from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.options.model import ModelOptions
from edge_mllm.cli.options.output import QuietOption
from edge_mllm.cli.talk.talk import Talk, read_chat_pictures
from edge_mllm.cli.terminal.errors import plain_errors

if TYPE_CHECKING:
    from edge_mllm.session.chat import Chat
    from edge_mllm.session.session import Model


@dataclass(frozen=True, kw_only=True)
class _ChatAnswerOptions(AnswerOptions):
    """As for ``run``; turns may be longer."""

    max_new_tokens: MaxNewTokensOption = 512


@plain_errors
@grouped
def chat(
    *,
    loading: ModelOptions,
    image: ImagesOption = None,
    quiet: QuietOption = False,
    system: SystemOption = None,
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
    pictures = read_chat_pictures(image or [])  # what is missing is said before the model is loaded
    _check_chat_file(chat_file)
    with loading.load(request.limits.max_memory, lasting=True, **_tuned(loading, chat_file)) as loaded:
        conversation = _begin(loaded, chat_file, system, quiet=quiet)
        talk = Talk(loaded, conversation, request, quiet=quiet)
        try:
            talk.run(pictures)
        finally:  # an interruption ends the talk, and must not lose it
            if chat_file is not None:
                talk.conversation.save(chat_file)


def _tuned(loading: ModelOptions, chat_file: Path | None) -> dict[str, Any]:
    """Settings that ``edge-mllm tune`` kept, unless a chat goes on that was saved with others, as its cache needs."""
    tuned = loading.tuned()
    if not tuned or chat_file is None or not chat_file.exists():
        return tuned
    from edge_mllm.session.chat_file import saved_binding

    saved = saved_binding(chat_file)
    cached = {name: str(tuned[name]) for name in ("engine", "chunk", "kv_type") if name in tuned}
    return tuned if all(saved.get(name) == value for name, value in cached.items()) else {}


def _check_chat_file(file: Path | None) -> None:
    """Say now, and not after a long talk, that it cannot be kept there."""
    from edge_mllm.errors import ChatFileError

    if file is None:
        return
    if not file.parent.is_dir():
        raise ChatFileError(file, f"there is no folder '{file.parent}'")
    if file.exists() and not file.is_file():
        raise ChatFileError(file, "it is no file")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ChatFileError(file, "it cannot be written")


def _begin(model: Model, chat_file: Path | None, system: str | None, *, quiet: bool) -> Chat:
    """A conversation: the one in the file where there is one, else a new one.

    Raises:
        ChatFileError: The file cannot be used, or its conversation began with another system message.
    """
    from edge_mllm.errors import ChatFileError

    if chat_file is not None:
        model.binding()  # says now, and not after a long talk, where a chat cannot be saved
    if chat_file is not None and chat_file.exists():
        saved = model.load_chat(chat_file)
        if system is not None and system != saved.system:
            raise ChatFileError(chat_file, "it began with another system message; give the same or none")
        if saved.cache_left is not None and not quiet:
            reason = f"the chat was saved with {saved.cache_left}"
            typer.echo(f"{reason}; its words are kept, the next answer computes them anew", err=True)
        return saved
    return model.chat(system=system)
