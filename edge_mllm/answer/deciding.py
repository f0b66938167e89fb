"""Questions with given options: the log-probability of each option as the answer, with no token decoded.

Calibration takes off what the model says without seeing anything: the same prompt with a grey picture of the same size
in place of each picture, so that ``logprob - empty_logprob`` is what the picture adds. Sources: Zhao et al., "Calibrate
Before Use", arXiv 2102.09690; Holtzman et al., "Surface Form Competition", arXiv 2104.08315.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_mllm.answer.budget import ImageBudget
from edge_mllm.answer.decision import Decision, DecisionTimings, DecisionUsage, OptionScore, shares
from edge_mllm.answer.decoding.options import OptionLogprobs, option_ids
from edge_mllm.answer.messages import assistant_message, last_question
from edge_mllm.answer.pictures.picture import ConversationPicture
from edge_mllm.answer.pipeline import Conversation, Pipeline, Weighed
from edge_mllm.answer.request import PictureOptions, budget_of
from edge_mllm.answer.timings import Stage, Stopwatch
from edge_mllm.arguments import require, require_known
from edge_mllm.arrays import IntArray
from edge_mllm.errors import PromptError, SettingError
from edge_mllm.picture.image import Picture
from edge_mllm.prompt.template import Message

_GREY = 127
"""Of an empty picture: the middle of the range."""
_MOST_REMEMBERED = 1024
Asked = tuple[bytes, tuple[tuple[int, int], ...], tuple[bytes, ...], str]
"""A question without its pictures' contents: prompt, sizes, options, budget."""


class DecideOptions(PictureOptions, total=False):
    """The options of one decision, as :meth:`edge_mllm.Model.decide` takes them by name."""

    whole: bool
    """Score each option as the whole answer, its end included (default). False scores it as the answer's beginning:
    then an option of one token takes no run of the decoder beside the prompt's."""
    calibrate: bool
    """Take off what the model says of an empty picture of the same size."""


@dataclass(frozen=True, kw_only=True)
class DecideSettings:
    """How to decide.

    Raises:
        SettingError: A value is of another type.
    """

    whole: bool = True
    calibrate: bool = False
    budget: ImageBudget = field(default_factory=ImageBudget)

    def __post_init__(self) -> None:
        require("whole", self.whole, bool)
        require("calibrate", self.calibrate, bool)


def decide_settings(options: DecideOptions) -> DecideSettings:
    """Options by name, as one checked value.

    Raises:
        SettingError: There is no such option, or a value is outside its range or of another type.
    """
    require_known(options, DecideOptions)
    whole, calibrate = options.get("whole", True), options.get("calibrate", False)
    return DecideSettings(whole=whole, calibrate=calibrate, budget=budget_of(options))


def checked_options(options: Iterable[str]) -> list[str]:
    """Options without the white space around them: a model's template writes what stands before an answer.

    Raises:
        SettingError: They are no list of at least two different texts.
    """
    if isinstance(options, str | bytes | Mapping) or not isinstance(options, Iterable):
        shown = repr(options) if isinstance(options, str) else f"of type {type(options).__name__}"
        raise SettingError(f"options is {shown}; it must be a list of texts")
    found = []
    for option in options:
        require("an option", option, str, "a text")
        if not option.strip():
            raise SettingError("an option is empty; leave it out")
        if option.strip() in found:
            raise SettingError(f"the option {option.strip()!r} is given twice")
        found.append(option.strip())
    if len(found) < 2:
        raise SettingError(f"a decision needs two options or more, {len(found)} given")
    return found


def tokens_of_options(
    pipeline: Pipeline, asked: Conversation, options: Sequence[str], *, whole: bool = True
) -> list[IntArray]:
    """Token ids int64 [n] of each option as the answer to a conversation; the one that ends it where it is ``whole``.

    Raises:
        PromptError: The model's template does not continue the prompt with an option, or it holds the end of an answer.
    """
    prompt = pipeline.prompt(asked).ids
    reader = pipeline.parts.reader
    stops = list(reader.stop_token_ids)
    found = []
    for option in options:
        said = Conversation([*asked.messages, assistant_message(option)], asked.pictures)
        ids = option_ids(prompt, pipeline.prompt(said).ids, stops, option)
        if len(ids) < 2 or np.isin(reader.text_ids(option), stops).any():
            raise PromptError(f"the option {option!r} ends the answer for this model; use other words")
        found.append(ids if whole else ids[:-1])
    return found


class EmptyAnswers:
    """What a model says of empty pictures, remembered: questions repeat from picture to picture."""

    def __init__(self) -> None:
        self._known: OrderedDict[Asked, tuple[OptionLogprobs, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Asked) -> tuple[OptionLogprobs, ...] | None:
        """Log-probabilities of each option's tokens, where they are known."""
        with self._lock:
            return self._known.get(key)

    def put(self, key: Asked, logprobs: tuple[OptionLogprobs, ...]) -> None:
        """Remember them, and forget the oldest where there are too many."""
        with self._lock:
            self._known[key] = logprobs
            while len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)


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
            options: From :func:`checked_options`.

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
        _tell_apart(options, ids)
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


def _tell_apart(options: Sequence[str], ids: Sequence[IntArray]) -> None:
    """Refuse options of which one answer would be both.

    Raises:
        PromptError: Two are the same tokens, or one begins with another and only beginnings are scored.
    """
    for place, own in enumerate(ids):
        for other, longer in enumerate(ids):
            if other == place or not np.array_equal(own, longer[: len(own)]):
                continue
            if len(own) == len(longer):
                same = f"the option {options[place]!r} is the same to this model as {options[other]!r}"
                raise PromptError(f"{same}; leave one out")
            begun = f"the option {options[place]!r} is the beginning of {options[other]!r}"
            raise PromptError(f"{begun}; score whole answers (`whole`) or use other words")


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
