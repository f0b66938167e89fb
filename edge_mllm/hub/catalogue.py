"""Models that are known by a short name. ``catalogue.json`` is written from the families (``make catalogue``)."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from edge_mllm.typed_json import read_typed

_FILE = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True, kw_only=True)
class StageWork:
    """What a stage of an answer has to do; :mod:`edge_mllm.costs.roofline` makes seconds of it."""

    line: str
    """Of a device profile, such as ``decode/gguf/q4_0``."""
    amount: float
    count: float
    attention: float


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model."""

    name: str
    """Short, in small letters."""
    family: str
    checkpoint: str
    """Hub id of the weights as their makers publish them."""
    gguf: str | None
    """Hub id of a GGUF file with its mmproj; None where none is known."""
    onnx: str | None
    """Hub id of ONNX files in the layout of transformers.js; None where none is known."""
    parameters: int
    """Of decoder, tower and projector."""
    licence: str
    bundle_bytes: int
    """A bundle of 4 bits with one decoder and an int8 tower, estimated from the shape."""
    visual_tokens: dict[str, int]
    """Size of a picture, as ``640x480`` -> visual tokens."""
    running_bytes: int
    """Of memory, for an answer of 64 tokens about a picture of 640x480: weights, cache, picture, libraries."""
    works: dict[str, StageWork]
    """Of that answer: ``picture``, ``tower``, ``prefill`` and ``token``, each of its tokens."""

    @property
    def repos(self) -> tuple[str, ...]:
        """Where to look for files that run, in order."""
        return tuple(dict.fromkeys(repo for repo in (self.gguf, self.onnx, self.checkpoint) if repo is not None))


@functools.cache
def entries() -> tuple[Entry, ...]:
    """All of them, by size."""
    document = json.loads(_FILE.read_text("utf-8"))
    return tuple(read_typed(Entry, item, "models") for item in document["models"])


def find_entry(name: str) -> Entry | None:
    """The model of a short name, whatever its case."""
    return next((entry for entry in entries() if entry.name == name.lower()), None)
