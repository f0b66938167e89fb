"""The conversation: lines are read and answered until the input ends."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edge_mllm.cli.run import cut_note, print_stream
from edge_mllm.cli.talk.line_editor import LineEditor
from edge_mllm.cli.talk.typed import COMMANDS, Command, Said, read_typed, typed_paths
from edge_mllm.cli.terminal.costs import cost_line, turn_line
from edge_mllm.cli.terminal.errors import as_typed
from edge_mllm.cli.terminal.pictures import STANDARD_INPUT, read_pictures
from edge_mllm.cli.terminal.waiting import with_progress

if TYPE_CHECKING:
    from edge_mllm.answer.request import Request
    from edge_mllm.session.chat import Chat
    from edge_mllm.session.session import Model

_LAST = 6
"""Messages of a conversation that is gone on with, which are shown."""


class Talk:
    """Pictures are encoded while the question is typed."""

    def __init__(self, model: Model, conversation: Chat, request: Request, *, quiet: bool) -> None:
        self.conversation = conversation
        self._model, self._request, self._quiet = model, request, quiet
        self._waiting: list[str | bytes] = []
        self._unanswered = ""
        self._lines = LineEditor()
        self._commands: dict[str, Callable[[str], None]] = {
            "/image": self._image,
            "/clear": self._clear,
            "/save": self._save,
            "/help": self._help,
        }

    def run(self, pictures: list[str | bytes]) -> None:
        """Talk until the end of the input or /quit."""
        if self._lines.terminal and not self._quiet:
            _tell(f"{self._model.name} on {self._model.engine}; /help shows what can be typed")
            self._show_earlier()
        self._add(pictures)
        while (line := self._lines.read()) is not None:
            typed = read_typed(line)
            if typed == Command("/quit", ""):
                return
            if isinstance(typed, Command):
                self._commands.get(typed.name, self._help)(typed.rest)
            elif isinstance(typed, Said):
                self._say(typed)
            else:
                near = "" if typed.near is None else f"; did you mean {typed.near}?"
                _tell(f"no command and no picture is called {typed.word}{near} (/help shows all)")

    def _say(self, typed: Said) -> None:
        if typed.pictures:
            self._add(_opened(list(typed.pictures)))
        question = typed.text or ("" if typed.pictures else self._unanswered)
        if question:
            self._answer(question)
        elif typed.pictures and self._lines.terminal:
            self._count()

    def _add(self, pictures: list[str | bytes]) -> None:
        self._waiting += pictures
        if not self._waiting or self._request.limits.given:
            return  # with limits, how finely they may be tiled depends on the question
        budget = self._request.budget
        self._model.prepare(
            *self._waiting,
            detail=budget.detail,
            max_image_tokens=budget.max_image_tokens,
            reduction=budget.reduction,
        )

    def _count(self) -> None:
        pictures = f"{len(self._waiting)} picture" + ("" if len(self._waiting) == 1 else "s")
        _tell(f"{pictures} for the next question")

    def _image(self, rest: str) -> None:
        try:
            paths = typed_paths(rest)
        except ValueError as error:
            _tell(f"cannot read that: {error}")
            return
        if not paths:
            _tell("/image PATH; nothing was named")
            return
        self._add(_opened(paths))
        if self._lines.terminal:
            self._count()

    def _clear(self, _: str) -> None:
        self.conversation = self._model.chat(system=self.conversation.system)
        self._waiting, self._unanswered = [], ""
        if not self._quiet:
            _tell("the conversation begins anew")

    def _save(self, rest: str) -> None:
        from edge_mllm.session.transcript import transcript
        from edge_mllm.whole_file import write_whole

        try:
            (path,) = typed_paths(rest)
        except ValueError:
            _tell("/save FILE; give one name")
            return
        if Path(path).exists():
            _tell(f"'{path}' exists; give another name")
            return
        try:
            write_whole(Path(path), [transcript(self.conversation.messages).encode()])
        except OSError as error:
            _tell(f"cannot write '{path}': {error.strerror or error}")
            return
        if not self._quiet:
            _tell(f"saved as text in '{path}'")

    def _help(self, _: str) -> None:
        _tell("\n".join(f"{name:7} {about}" for name, about in COMMANDS.items()))

    def _show_earlier(self) -> None:
        """What was said in a conversation that is gone on with, and the questions for the key Up."""
        from edge_mllm.session.transcript import transcript

        messages = [message for message in self.conversation.messages if message["role"] != "system"]
        asked = (part for message in messages if message["role"] == "user" for part in message["content"])
        self._lines.remember(str(part["text"]) for part in asked if part.get("type") == "text")
        if len(messages) > _LAST:
            _tell(f"... {len(messages) - _LAST} earlier messages; /save FILE writes them\n")
        if messages:
            _tell(transcript(messages[-_LAST:]).rstrip() + "\n")

    def _answer(self, question: str) -> None:
        """Answer one question; an error or Ctrl-C ends the answer, not the conversation.

        A question whose pictures cannot be used waits with the others: an empty line asks it again.
        """
        from edge_mllm.errors import EdgeMLLMError, ImageError

        pictures, self._waiting, self._unanswered = self._waiting, [], ""
        try:
            pieces = self.conversation.respond(question, pictures, self._request)
            answer = print_stream(with_progress(self._model, pieces, quiet=self._quiet))
            if not self._quiet:
                shown = turn_line(answer) if sys.stderr.isatty() else cost_line(answer)
                _tell(shown + cut_note(answer, self._request))
        except KeyboardInterrupt:
            _tell("\nstopped")
        except ImageError as error:
            self._waiting, self._unanswered = _usable(pictures), question
            _tell(f"edge-mllm: {as_typed(str(error))}")
            kept = f" with {len(self._waiting)} of {len(pictures)} pictures"
            _tell(f"the question waits{kept}; an empty line asks it")
        except EdgeMLLMError as error:
            _tell(f"edge-mllm: {as_typed(str(error))}")


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _opened(paths: list[str]) -> list[str | bytes]:
    """Pictures that were typed; what is wrong with one is said, and the others count."""
    from edge_mllm.errors import ImageError

    found: list[str | bytes] = []
    for path in paths:
        try:
            found += read_chat_pictures([path])
        except ImageError as error:
            _tell(f"edge-mllm: {as_typed(str(error))}")
    return found


def read_chat_pictures(typed: list[str]) -> list[str | bytes]:
    """Pictures of a chat, as the library takes them.

    Raises:
        ImageError: One is missing, or comes from standard input, where questions come from.
    """
    from edge_mllm.errors import ImageError

    if STANDARD_INPUT in typed:
        raise ImageError("from standard input", "a chat reads its questions there; give the picture's path")
    return read_pictures(typed)


def _usable(pictures: list[str | bytes]) -> list[str | bytes]:
    """Those that can be decoded."""
    from edge_mllm.errors import ImageError
    from edge_mllm.picture.image import load_rgb

    found = []
    for picture in pictures:
        with contextlib.suppress(ImageError):
            load_rgb(picture)
            found.append(picture)
    return found
