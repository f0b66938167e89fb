"""What requests of every kind come to: messages with places for pictures, the pictures, and how to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_mllm.answer.decoding.sampling import SamplingOptions
from edge_mllm.answer.request import Request
from edge_mllm.prompt.template import Message


def sampling_of(**given: float | int | None) -> SamplingOptions:
    """What a request says of sampling; None where it says nothing and the library's own value holds."""
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return SamplingOptions(**chosen)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request."""

    messages: Sequence[Message]
    """Their content is a list of ``{"type": "text", "text": ...}`` and ``{"type": "image"}``."""
    pictures: Sequence[bytes]
    """Files, one for each place, in order."""
    request: Request
