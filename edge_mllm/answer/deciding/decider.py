"""Questions with given options: the log-probability of each option as the answer, with no token decoded.

Calibration takes off what the model says without seeing anything: the same prompt with a grey picture of the same size
in place of each picture, so that ``logprob - empty_logprob`` is what the picture adds. Sources: Zhao et al., "Calibrate
Before Use", arXiv 2102.09690; Holtzman et al., "Surface Form Competition", arXiv 2104.08315.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np

from edge_mllm.answer.conversation import Conversation
from edge_mllm.answer.deciding.decision import Decision, DecisionTimings, DecisionUsage, OptionScore, shares
from edge_mllm.answer.deciding.empty_answers import Asked, EmptyAnswers
from edge_mllm.answer.deciding.option_tokens import tell_apart, tokens_of_options
from edge_mllm.answer.deciding.settings import DecideSettings
from edge_mllm.answer.decoding.options import OptionLogprobs
from edge_mllm.answer.messages import last_question
from edge_mllm.answer.pictures.picture import ConversationPicture
from edge_mllm.answer.pipeline import Pipeline, Weighed
from edge_mllm.answer.timings import Stage, Stopwatch
from edge_mllm.arrays import IntArray
from edge_mllm.errors import SettingError
from edge_mllm.picture.image import Picture
from edge_mllm.prompt.template import Message

_GREY = 127
"""Of an empty picture: the middle of the range."""


class Decider:
    """Decides questions about the same pictures, which are read and computed once.

    Args:
        pipeline: Of the model.
        pictures: All pictures of every question, in the order of their places.
        settings: How to decide.
        empty: What is known of empty pictures.

    Raises:
        ImageError: A picture cannot be used.
        PromptError: The budget on visual tokens cannot be kept.
        SettingError: There is no picture to calibrate by.
    """

    def __init__(
        self, pipeline: Pipeline, pictures: Sequence[Picture], settings: DecideSettings, empty: EmptyAnswers
    ) -> None:
        if settings.calibrate and not pictures:
            raise SettingError("without a picture there is nothing to calibrate by; leave `calibrate` out")
        self._pipeline, self.settings, self._empty = pipeline, settings, empty
        self._given = pictures
        start = time.perf_counter()
        self._pictures = self._read(pictures)
        self._before: dict[Stage, float] = {"preprocess": time.perf_counter() - start, "load": 0.0}
        """Seconds that the next question tells of, because it is the first that needed them."""
        self._calibrated_s: dict[Asked, float] = {}
        """Seconds of calibrations that no decision has told yet."""

    def calibrate(self, questions: Iterable[tuple[Sequence[Message], Sequence[str]]]) -> None:
        """Ask questions about empty pictures, before all of them are asked about the real ones.

        The decoder keeps one conversation, so real and empty pictures in turns would be computed again and again.

        Raises:
            EdgeMLLMError: As :meth:`decide`.
        """
        for messages, options in questions:
            asked = self._conversation(messages)
            self._about_empty(asked, self._ids(asked, options))

    def decide(self, messages: Sequence[Message], options: Sequence[str]) -> Decision:
        """Decide one question.

        Args:
            messages: Said so far, with places for the pictures; the last one is the user's.
            options: From :func:`edge_mllm.answer.deciding.settings.checked_options`.

        Raises:
            PromptError: The template refuses the messages or an option, or options are the same or begin alike.
            ContextOverflowError: Prompt and longest option do not fit.
            EngineError: The decoder failed.
        """
        watch = self._pipeline.start_watch()
        asked = self._conversation(messages)
        ids = self._ids(asked, options)
        empty, calibration_s = None, 0.0
        if self.settings.calibrate:
            key, empty = self._about_empty(asked, ids)
            calibration_s = self._calibrated_s.pop(key, 0.0)
            watch = self._pipeline.start_watch()
        for stage in self._before:
            watch.earlier(stage, self._before[stage])
            self._before[stage] = 0.0
        weighed = self._pipeline.weigh(asked, ids, watch)
        return Decision(
            question=last_question(messages),
            options=_scored(options, weighed.scores.logprobs, empty),
            calibrated=self.settings.calibrate,
            usage=_usage(weighed),
            images=tuple(picture.usage for picture in asked.pictures),
            timings=_timings(watch, calibration_s),
            model=self._pipeline.parts.reader.name,
            engine=self._pipeline.parts.engine,
        )

    def _read(self, pictures: Sequence[Picture]) -> Sequence[ConversationPicture]:
        return self._pipeline.parts.reader.pictures(pictures, self.settings.budget)

    def _conversation(self, messages: Sequence[Message]) -> Conversation:
        """A question about the pictures; about new copies of them where their tokens are chosen for the question."""
        if any(picture.thinned is not None and picture.query is not None for picture in self._pictures):
            self._pictures = self._read(self._given)
        return Conversation(messages, self._pictures)

    def _ids(self, asked: Conversation, options: Sequence[str]) -> list[IntArray]:
        ids = tokens_of_options(self._pipeline, asked, options, whole=self.settings.whole)
        tell_apart(options, ids)
        return ids

    def _about_empty(self, asked: Conversation, ids: Sequence[IntArray]) -> tuple[Asked, tuple[OptionLogprobs, ...]]:
        """The question, and the log-probabilities of its options about empty pictures."""
        sizes = tuple((picture.usage.width, picture.usage.height) for picture in asked.pictures)
        prompt = self._pipeline.prompt(asked).ids.tobytes()
        key: Asked = (prompt, sizes, tuple(each.tobytes() for each in ids), repr(self.settings.budget))
        known = self._empty.get(key)
        if known is not None:
            return key, known
        watch = Stopwatch()
        grey = [np.full((height, width, 3), _GREY, np.uint8) for width, height in sizes]
        found = self._pipeline.weigh(Conversation(asked.messages, self._read(grey)), ids, watch).scores.logprobs
        self._empty.put(key, found)
        self._calibrated_s[key] = watch.spent_s
        self._before["load"] += watch.timings().load_s
        return key, found


def _scored(
    options: Sequence[str], logprobs: Sequence[OptionLogprobs], empty: Sequence[OptionLogprobs] | None
) -> tuple[OptionScore, ...]:
    sums, means = [float(each.sum()) for each in logprobs], [float(each.mean()) for each in logprobs]
    base: Sequence[float | None] = [None] * len(sums) if empty is None else [float(each.sum()) for each in empty]
    gains = [total - (before or 0.0) for total, before in zip(sums, base, strict=True)]
    raw = shares(gains)
    normalised = shares([gain / len(each) for gain, each in zip(gains, logprobs, strict=True)])
    return tuple(
        OptionScore(
            text=option,
            probability=normalised[place],
            raw_probability=raw[place],
            logprob=sums[place],
            mean_logprob=means[place],
            tokens=len(logprobs[place]),
            empty_logprob=base[place],
        )
        for place, option in enumerate(options)
    )


def _usage(weighed: Weighed) -> DecisionUsage:
    return DecisionUsage(
        prompt_tokens=weighed.prompt_tokens,
        image_tokens=weighed.image_tokens,
        reused_tokens=weighed.reused_tokens,
        option_tokens=weighed.scores.tokens,
        option_runs=weighed.scores.runs,
    )


def _timings(watch: Stopwatch, calibration_s: float) -> DecisionTimings:
    total_s, told = watch.spent_s, watch.timings()
    return DecisionTimings(
        load_s=told.load_s,
        preprocess_s=told.preprocess_s,
        vision_s=told.vision_s,
        prefill_s=told.prefill_s,
        options_s=watch.options_s,
        calibration_s=calibration_s,
        total_s=total_s + calibration_s,
    )
