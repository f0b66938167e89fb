"""Pictures as they are typed: several after one option, from standard input, from a pipe."""

from __future__ import annotations

import itertools
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import typer

from edge_mllm.cli.terminal.help import SectionedCommand

STANDARD_INPUT = "-"
_LONG = 200
"""Characters of a name that messages show."""
MOST_BYTES = 1 << 30
"""Of a picture that comes through a pipe; an endless one must end."""


def read_pictures(typed: Sequence[str]) -> list[str | bytes]:
    """What the library gets for words after ``--image``: paths stay, what can be read only once is read now.

    Raises:
        ImageError: Standard input or a pipe gives no picture, or too much; a file is missing or a directory.
    """
    return [_read_picture(word) for word in typed]


def _read_picture(word: str) -> str | bytes:
    from edge_mllm.errors import ImageError
    from edge_mllm.picture.image import load_rgb

    name = f"'{word}'" if len(word) <= _LONG else f"'{word[:_LONG]}...'"
    if word == STANDARD_INPUT:
        return _bounded(sys.stdin.buffer, "from standard input")
    if "://" in word or word.startswith("data:"):
        load_rgb(word)  # says what is wrong with an address
        return word
    try:
        mode = Path(word).stat().st_mode
        if stat.S_ISREG(mode):
            return word
        if stat.S_ISDIR(mode):
            raise ImageError(name, "it is a directory")
        with Path(word).open("rb") as stream:
            return _bounded(stream, name)
    except FileNotFoundError:
        raise ImageError(name, "no such file") from None
    except OSError as error:
        raise ImageError(name, error.strerror or str(error)) from error


def _bounded(stream: IO[bytes], name: str) -> bytes:
    from edge_mllm.errors import ImageError

    found = stream.read(MOST_BYTES + 1)
    if not found:
        raise ImageError(name, "it gave no bytes")
    if len(found) > MOST_BYTES:
        raise ImageError(name, "it gives more than 1 GiB")
    return found


class PicturesCommand(SectionedCommand):
    """A command whose ``--image`` takes several words: ``-i a.png b.png`` is ``-i a.png -i b.png``."""

    many_questions = False
    """Whether several sentences may stand behind the pictures."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Spread pictures before the words are read."""
        wanted = self.wanted_words(args)
        valued = [each for each in self.params if not getattr(each, "is_flag", False)]
        taking = {form for each in valued if each.param_type_name == "option" for form in each.opts}
        images = {form for parameter in self.params if parameter.name == "image" for form in parameter.opts}
        spread = spread_pictures(args, images, taking, wanted, many_questions=self.many_questions)
        return super().parse_args(ctx, spread)

    def wanted_words(self, args: Sequence[str]) -> int:  # noqa: ARG002  (of commands that can do without)
        """How many positional words the command needs."""
        return sum(parameter.param_type_name == "argument" for parameter in self.params)


def spread_pictures(
    args: Sequence[str], images: set[str], taking: set[str], wanted: int, *, many_questions: bool = False
) -> list[str]:
    """Put the option before every picture that follows another.

    Args:
        args: Words of the command line after the command.
        images: Forms of the option.
        taking: Forms of all options that take a value.
        wanted: Positional words (the prompt) that the command needs; where none stands elsewhere, the last word of a
            row of pictures is one.
        many_questions: Whether sentences before that last word are questions too.

    Returns:
        Words that say the same with one value an option.
    """
    words, rows = list(args), []
    free = place = 0
    while place < len(words) and words[place] != "--":
        word = words[place]
        row = word in images
        place += 2 if word in taking else 1
        free += word not in taking and not _is_option(word)
        start = place
        while row and place < len(words) and not _is_option(words[place]):
            place += 1
        if place > start:
            rows.append(range(start, place))
    free += max(0, len(words) - place - 1)  # after --
    prompt = _prompt(words, rows) if free < wanted else None
    questions = {prompt} | (_sentences(words, rows, prompt) if many_questions and prompt is not None else set())
    pictures = {number for row in rows for number in row} - questions
    option = min(images, key=len, default="")
    return [part for number, word in enumerate(words) for part in ([option, word] if number in pictures else [word])]


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != STANDARD_INPUT


def _prompt(words: Sequence[str], rows: Sequence[range]) -> int | None:
    """Which word is the question: the last of a row, preferably one that is no file."""
    lasts = [row[-1] for row in rows]
    return next((number for number in lasts if not _is_there(words[number])), lasts[-1] if lasts else None)


def _sentences(words: Sequence[str], rows: Sequence[range], prompt: int) -> set[int]:
    """Words right before the question that are sentences themselves: several words, and no file."""
    row = next(row for row in rows if row[-1] == prompt)
    before = itertools.takewhile(lambda n: " " in words[n].strip() and not _is_there(words[n]), reversed(row[:-1]))
    return set(before)


def _is_there(word: str) -> bool:
    try:
        return Path(word).exists()
    except OSError:  # longer than names may be, as questions are
        return False
