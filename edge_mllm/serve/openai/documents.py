"""What OpenAI's clients read: completions, pieces of them, usage and log probabilities."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from edge_mllm.answer.answer import Answer, Piece
from edge_mllm.answer.decoding.logprobs import StepLogprobs, TokenLogprob


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What all objects of one completion have in common."""

    id: str
    created: int
    model: str

    @staticmethod
    def new(model: str) -> Completion:
        """One that begins now."""
        return Completion(id=f"chatcmpl-{secrets.token_hex(12)}", created=int(time.time()), model=model)

    def whole(self, answer: Answer, ends: Collection[int], costs: dict[str, Any]) -> dict[str, Any]:
        """A ``chat.completion``.

        Args:
            answer: It.
            ends: Tokens that end the model's turn, which are no part of the text.
            costs: For ``x_edge_mllm``.
        """
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": None if answer.logprobs is None else logprobs(answer.logprobs, ends),
            "finish_reason": answer.finish_reason,
        }
        return self._object("chat.completion", [choice]) | {"usage": usage(answer), "x_edge_mllm": costs}

    def begin(self) -> dict[str, Any]:
        """The first ``chat.completion.chunk``."""
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, piece: Piece, ends: Collection[int]) -> dict[str, Any]:
        """A ``chat.completion.chunk`` with new text."""
        told = None if piece.logprobs is None else logprobs([piece.logprobs], ends)
        return self._chunk({"content": piece.text}, told)

    def end(self, answer: Answer, costs: dict[str, Any]) -> dict[str, Any]:
        """The chunk that says why it ended, and what it cost."""
        chunk = self._chunk({}, finish_reason=answer.finish_reason)
        return chunk | {"x_edge_mllm": costs}

    def usage(self, answer: Answer) -> dict[str, Any]:
        """The chunk after the last, with token counts."""
        return self._object("chat.completion.chunk", []) | {"usage": usage(answer)}

    def progress(self, done: int, total: int) -> dict[str, Any]:
        """A chunk without choices that says how far a picture is."""
        return self._object("chat.completion.chunk", []) | {"x_edge_mllm": {"progress": {"tile": done, "tiles": total}}}

    def tilings(self, found: Sequence[Any]) -> dict[str, Any]:
        """A chunk without choices that says how the pictures are cut."""
        return self._object("chat.completion.chunk", []) | {"x_edge_mllm": {"tilings": list(found)}}

    def _chunk(
        self, delta: dict[str, str], told: dict[str, Any] | None = None, finish_reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": told, "finish_reason": finish_reason}
        return self._object("chat.completion.chunk", [choice])

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


def usage(answer: Answer) -> dict[str, Any]:
    """Token counts; those of pictures and those that were kept from an earlier request among them."""
    counted = answer.usage
    return {
        "prompt_tokens": counted.prompt_tokens,
        "completion_tokens": counted.completion_tokens,
        "total_tokens": counted.prompt_tokens + counted.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": counted.reused_tokens, "image_tokens": counted.image_tokens},
    }


def logprobs(steps: Sequence[StepLogprobs], ends: Collection[int]) -> dict[str, Any]:
    """OpenAI's form; the token that ended the model's turn is not told."""
    content = [
        _told(step.chosen) | {"top_logprobs": [_told(each) for each in step.top]}
        for step in steps
        if step.chosen.token not in ends
    ]
    return {"content": content, "refusal": None}


def _told(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.text, "bytes": list(token.data) or None, "logprob": max(token.logprob, -9999.0)}
