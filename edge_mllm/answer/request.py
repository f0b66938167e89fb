"""How to answer: the options of one answer, by name and as one checked value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, TypedDict, Unpack

from edge_mllm.answer.budget import Detail, ImageBudget, image_budget
from edge_mllm.answer.decoding.sampling import LogitsProcessor, SamplingOptions
from edge_mllm.answer.limits import Limits
from edge_mllm.arguments import require, require_known, require_numbers
from edge_mllm.errors import SettingError
from edge_mllm.picture.reduction.spec import TokenReduction

_MOST_GUESSED = 64
MOST_LOGPROBS = 20
"""Most likely tokens that are told of one step."""


class PictureOptions(TypedDict, total=False):
    """How finely pictures are tiled, and how many of their tokens the decoder gets."""

    detail: Detail | Sequence[Detail]
    """``low``, ``auto`` (default) or ``high``, see :class:`edge_mllm.answer.budget.ImageBudget`; a list has one
    for each picture."""
    max_image_tokens: int | None
    """Most visual tokens of all pictures together."""
    reduction: TokenReduction | str | None
    """Fewer visual tokens, as ``diverse:1/4``, see :mod:`edge_mllm.picture.reduction.spec`."""


class GenerateOptions(PictureOptions, total=False):
    """The options of one answer, as :meth:`edge_mllm.Model.generate` and its siblings take them by name."""

    max_new_tokens: int
    """Most tokens of the answer (256); the context's end comes first where it is nearer."""
    sampling: SamplingOptions | None
    """How tokens are chosen; None is greedy."""
    stop: str | Sequence[str]
    """A text that ends the answer, or several; it is not part of the answer."""
    max_memory: int | None
    """Most resident bytes. With detail ``auto`` pictures are tiled more coarsely for it, or refused."""
    max_ttft: float | None
    """Most seconds to the first token, loading apart. Unknown speeds are measured first, which counts."""
    ignore_eos: bool
    """Do not end at the model's stop tokens; for measurements that need a fixed length."""
    json_schema: str | Mapping[str, Any] | None
    """JSON Schema, as text or as a dict, that the answer is held to; it is valid unless ``max_new_tokens`` cut it."""
    prompt_lookup: int
    """Most tokens guessed at a time where answers copy, see :mod:`edge_mllm.answer.decoding.prompt_lookup`; 0: off."""
    logprobs: int | None
    """Tell how likely each token was, and this many of the most likely ones (0 to 20); None (default): do not."""
    processors: Sequence[LogitsProcessor]
    """Applied to the logits before sampling."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """How to answer.

    Raises:
        SettingError: A value is outside its range.
    """

    max_new_tokens: int = 256
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    stop: tuple[str, ...] = ()
    budget: ImageBudget = field(default_factory=ImageBudget)
    limits: Limits = field(default_factory=Limits)
    ignore_eos: bool = False
    """Do not end at the model's stop tokens."""
    processors: tuple[LogitsProcessor, ...] = ()
    """Applied to the logits before sampling."""
    json_schema: str | None = None
    """Hold the answer to this JSON schema; see :mod:`edge_mllm.answer.decoding.json_grammar`."""
    prompt_lookup: int = 0
    """Most tokens guessed at a time from what was said (:mod:`edge_mllm.answer.decoding.prompt_lookup`); 0: off."""
    logprobs: int | None = None
    """Tell how likely each token was, and this many of the most likely ones; None: do not."""

    def __post_init__(self) -> None:
        require_numbers(
            Integral, max_new_tokens=self.max_new_tokens, prompt_lookup=self.prompt_lookup, logprobs=self.logprobs
        )
        require("sampling", self.sampling, SamplingOptions)
        require("ignore_eos", self.ignore_eos, bool)
        for text in self.stop:
            require("stop", text, str, "a text or a list of texts")
        if self.json_schema is not None:
            require("json_schema", self.json_schema, str, "JSON text or a dict")
        if self.max_new_tokens < 1:
            raise SettingError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if any(not text for text in self.stop):
            raise SettingError("a stop string is empty; leave it out")
        if not 0 <= self.prompt_lookup <= _MOST_GUESSED:
            raise SettingError(f"prompt_lookup is {self.prompt_lookup}; it must be between 0 and {_MOST_GUESSED}")
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_LOGPROBS:
            raise SettingError(f"logprobs is {self.logprobs}; it must be between 0 and {MOST_LOGPROBS}")
        if self.json_schema is not None and self.ignore_eos:
            raise SettingError("an answer of a JSON schema ends where the schema ends; leave ignore_eos out")


def request_of(**options: Unpack[GenerateOptions]) -> Request:
    """Options by name, as one checked value.

    Raises:
        SettingError: There is no such option, or a value is outside its range or of another type.
    """
    require_known(options, GenerateOptions)
    stop, schema, sampling = options.get("stop", ()), options.get("json_schema"), options.get("sampling")
    require("stop", stop, Iterable, "a text or a list of texts")
    return Request(
        max_new_tokens=options.get("max_new_tokens", Request.max_new_tokens),
        sampling=SamplingOptions() if sampling is None else sampling,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        budget=budget_of(options),
        limits=Limits(max_memory=options.get("max_memory"), max_ttft_s=options.get("max_ttft")),
        ignore_eos=options.get("ignore_eos", False),
        processors=tuple(options.get("processors", ())),
        json_schema=json.dumps(schema) if isinstance(schema, Mapping) else schema,
        prompt_lookup=options.get("prompt_lookup", 0),
        logprobs=options.get("logprobs"),
    )


def budget_of(options: PictureOptions) -> ImageBudget:
    """How finely pictures are tiled.

    Raises:
        SettingError: A value is outside its range.
    """
    return image_budget(options.get("detail", "auto"), options.get("max_image_tokens"), options.get("reduction"))
