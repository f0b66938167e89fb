"""What a person types at the prompt: a command, paths of pictures, a question, or a question with paths in it."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMANDS: Mapping[str, str] = {
    "/image": "PATH...  add pictures to the next question; a path alone does it too",
    "/clear": "begin anew; the system message stays",
    "/save": "FILE  write what was said as text",
    "/help": "show this",
    "/quit": "end; Ctrl-D does it too. Ctrl-C stops an answer or clears the line",
}
"""Command -> what it takes and does."""
_OTHER_WORDS = {"/exit": "/quit", "/bye": "/quit", "/q": "/quit", "/?": "/help", "/images": "/image"}
_PICTURES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".avif", ".heic", ".jp2"),
)
"""Endings of names that are pictures to a person; what the file holds is looked at when it is opened."""
_WORD = re.compile(r"""'[^']*'|"[^"]*"|(?:\\.|[^\s\\])+""")
"""A word as shells and file managers write paths: in quotes, or with a backslash before every space."""
_PLACES = ("/", "./", "../", "~/", "file://")


@dataclass(frozen=True)
class Command:
    """A command with the rest of its line."""

    name: str
    rest: str


@dataclass(frozen=True)
class Unknown:
    """A word with a slash that is no command."""

    word: str
    near: str | None
    """The command that it looks like."""


@dataclass(frozen=True)
class Said:
    """A question, pictures for it, or both."""

    text: str
    pictures: tuple[str, ...] = ()


def read_typed(line: str) -> Command | Unknown | Said:
    """Tell what a line is, without its outer white space."""
    line = line.strip()
    word, _, rest = line.partition(" ")
    name = _OTHER_WORDS.get(word.lower(), word.lower())
    if name in COMMANDS:
        return Command(name, rest.strip())
    said = _said(line)
    if line.startswith("/") and not said.pictures:
        near = difflib.get_close_matches(name, [*COMMANDS, *_OTHER_WORDS], 1, 0.6) if len(name) > 1 else []
        return Unknown(word, _OTHER_WORDS.get(near[0], near[0]) if near else None)
    return said


def typed_paths(rest: str) -> list[str]:
    """The words after /image: one path with spaces where there is such a file, else words as in a shell.

    Raises:
        ValueError: A quotation mark is never closed.
    """
    whole = _plain(rest)
    if Path(whole).expanduser().is_file():
        return [str(Path(whole).expanduser())]
    words = [_plain(word) for word in shlex.split(rest)]
    return [word if "://" in word else str(Path(word).expanduser()) for word in words]


def _said(line: str) -> Said:
    """Paths that were dragged or pasted into a question are its pictures."""
    if (found := _picture(line, everywhere=True)) is not None:
        return Said("", (found,))
    pictures: list[str] = []
    kept: list[str] = []
    place = 0
    for word in _WORD.finditer(line):
        quoted = word.group()[0] in "'\""
        found = _picture(word.group(), everywhere=quoted)
        if found is not None:
            pictures.append(found)
            kept.append(line[place : word.start()])
            place = word.end()
    kept.append(line[place:])
    text = "".join(kept) if not pictures else " ".join("".join(kept).split())
    return Said(text, tuple(pictures))


def _picture(text: str, *, everywhere: bool) -> str | None:
    """The path of a picture that is there; names without a folder count only where nothing else is said."""
    if not everywhere and not text.startswith(_PLACES):
        return None
    try:
        path = Path(_plain(text)).expanduser()
        known = path.suffix.lower() in _PICTURES and path.is_file()
    except (OSError, RuntimeError, ValueError):  # too long for a path, or a home that is not known
        return None
    return str(path) if known else None


def _plain(text: str) -> str:
    """A path without quotes, backslashes or ``file://``."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    elif "\\" in text:
        text = re.sub(r"\\(.)", r"\1", text)
    return unquote(urlsplit(text).path) if text.startswith("file://") else text
