"""A bundle under test, run by this package's own runtime."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from edge_mllm.budget import ImageBudget
from edge_mllm.errors import ContextOverflowError
from edge_mllm.eval.answerer import Reply
from edge_mllm.eval.fingerprint import model_sha256
from edge_mllm.eval.options import Forced, IntArray, mean_logprob, option_ids
from edge_mllm.pipeline import Conversation
from edge_mllm.request import Request, assistant_message, user_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from edge_mllm.session import Model


class BundleAnswerer:
    """Answers greedily with a loaded model, every picture at the detail its own processor would use."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.name = model.name
        self.engine: str = model.engine
        self.sha256 = model_sha256(model.path)

    def answer(self, question: str, images: Sequence[Image], max_new_tokens: int) -> Reply:
        """Answer a prompt about RGB pictures."""
        answer = self._model.generate(question, list(images), max_new_tokens=max_new_tokens)
        timings = {name: value for name, value in asdict(answer.timings).items() if name != "load_s"}
        return Reply(text=answer.text, timings=timings, usage=asdict(answer.usage))

    def option_logprobs(self, question: str, images: Sequence[Image], options: Sequence[str]) -> list[float]:
        """Return the mean log-probability per token of each option as the whole answer, its stop token included.

        The pictures are encoded once and their part of the cache is kept from option to option.
        """
        parts = self._model.reader.pictures(list(images), ImageBudget())
        messages = [user_message(question, len(parts))]
        prompt = self._model.pipeline.prompt(Conversation(messages, parts)).ids
        stop = self._model.reader.stop_token_ids
        logprobs = []
        for option in options:
            answered = self._model.pipeline.prompt(Conversation([*messages, assistant_message(option)], parts)).ids
            ids = option_ids(prompt, answered, stop, option)
            logprobs.append(self._force(Conversation(messages, parts), ids, len(prompt)))
        return logprobs

    def _force(self, conversation: Conversation, ids: IntArray, prompt_tokens: int) -> float:
        needed = prompt_tokens + len(ids)
        if needed > self._model.decoder.n_ctx:
            image_tokens = sum(part.tokens for part in conversation.pictures)
            raise ContextOverflowError(needed, self._model.decoder.n_ctx, image_tokens)
        forced = Forced(ids)
        request = Request(max_new_tokens=len(ids), ignore_eos=True, processors=(forced,))
        for _ in self._model.pipeline.respond(conversation, request, self._model.start_watch()):
            pass
        return mean_logprob(np.stack(forced.logits), ids)
