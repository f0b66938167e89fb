"""What was said so far, and the pictures in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_mllm.answer.pictures.picture import ConversationPicture
from edge_mllm.prompt.template import Message


@dataclass(frozen=True)
class Conversation:
    """Messages with an item for each picture, and the pictures in the order of those items."""

    messages: Sequence[Message]
    pictures: Sequence[ConversationPicture]
