"""A bundle under test, run by this package's own runtime."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from edge_mllm.answer.budget import ImageBudget
from edge_mllm.answer.conversation import Conversation
from edge_mllm.answer.deciding.option_tokens import tokens_of_options
from edge_mllm.answer.messages import user_message
from edge_mllm.measure.eval.answerer import Reply
from edge_mllm.measure.eval.fingerprint import model_sha256

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from edge_mllm.session.session import Model


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
        pipeline = self._model.pipeline
        parts = self._model.reader.pictures(list(images), ImageBudget())
        asked = Conversation([user_message(question, len(parts))], parts)
        ids = tokens_of_options(pipeline, asked, options)
        scores = pipeline.weigh(asked, ids, pipeline.start_watch()).scores
        return [float(logprobs.mean()) for logprobs in scores.logprobs]
