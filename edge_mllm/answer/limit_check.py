"""Limits on an answer, asked about pictures before they are decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_mllm.answer.answer_plan import AnswerPlan
from edge_mllm.answer.conversation import Conversation
from edge_mllm.answer.limits import Limit, LimitError
from edge_mllm.answer.pictures.picture import ConversationPicture, seen_together
from edge_mllm.answer.request import Request


@dataclass(frozen=True)
class LimitCheck:
    """Limits, asked about pictures of a conversation; see :class:`edge_mllm.answer.pictures.picture.PictureCheck`."""

    check: Callable[[Conversation], tuple[Limit | None, AnswerPlan]]
    earlier: Conversation
    request: Request

    def __call__(self, pictures: Sequence[ConversationPicture], /) -> Limit | None:
        """The limit that they break."""
        return self._found(pictures)[0]

    def refuse(self, pictures: Sequence[ConversationPicture]) -> None:
        """Refuse pictures that take too much memory already; time is looked at when they are there."""
        limit, plan = self._found(pictures) if self.request.limits.max_memory is not None else (None, None)
        if plan is not None and limit == "max_memory":
            raise LimitError(limit, plan, self.request.limits)

    def _found(self, pictures: Sequence[ConversationPicture]) -> tuple[Limit | None, AnswerPlan]:
        together = seen_together([*self.earlier.pictures, *pictures])
        return self.check(Conversation(self.earlier.messages, together))
