"""What a peer's process and the conductor say to each other: one JSON object a line. Standard library only.

Every peer is a script that is called twice: ``SCRIPT prepare`` turns the checkpoint into what the peer loads, and
``SCRIPT serve`` loads it and answers. Both take a :class:`Job` as JSON. What native libraries print goes to standard
error, so that standard output carries replies alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class Job:
    """Where things are, and how the peer runs."""

    checkpoint: str
    """The Hugging Face directory whose weights everybody uses."""
    bundle: str
    """The same weights as this project exports them, with mmproj files beside."""
    out: str
    """The peer's own directory: ``prepare`` writes there."""
    threads: int
    variant: str
    """Which of the script's ways of running."""
    context: int = 2048


@dataclasses.dataclass(frozen=True)
class Question:
    """One question about one picture."""

    picture: str | None
    """A JPEG file; None where a peer takes no pictures."""
    text: str
    answer_tokens: int
    prompt_tokens: int
    """Tokens of the whole prompt, visual ones included, as this project counts them: for peers without pictures."""


@dataclasses.dataclass(frozen=True)
class Reply:
    """One answer. Seconds of wall clock; None for what the peer does not do or does not tell apart."""

    first_token_s: float | None
    """From the picture's file to the first token."""
    prefill_s: float | None
    """The decoder over the prompt."""
    decode_s: float
    """From the first token to the last."""
    prompt_tokens: int
    visual_tokens: int | None
    answer_tokens: int
    vision_s: float | None = None
    """Preparing and encoding the picture."""
    reused_tokens: int = 0
    """Prompt tokens that were not computed again."""


class Peer(Protocol):
    """A loaded model."""

    files: list[str]
    """Files that it loads; their sizes are the size on disk."""
    about: dict[str, Any]
    """Versions and settings."""

    def answer(self, question: Question) -> Reply:
        """Answer a question about a picture that was not seen before."""
        ...

    def again(self, question: Question) -> Reply | None:
        """Answer another question about the picture of the last one; None where there is no way to."""
        ...


def serve(make: Callable[[Job], Peer], prepare: Callable[[Job], None]) -> None:
    """Run one of the two commands."""
    job = Job(**json.loads(sys.argv[2]))
    if sys.argv[1] == "prepare":
        Path(job.out).mkdir(parents=True, exist_ok=True)
        prepare(job)
        return
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer = make(job)
    _tell(out, {"files": sorted(set(peer.files)), "about": peer.about})
    for command in _commands():
        question = Question(**command["question"])
        reply = peer.again(question) if command["do"] == "again" else peer.answer(question)
        _tell(out, {"reply": reply and dataclasses.asdict(reply)})


def _commands() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def _tell(out: Any, message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()
