"""What a question with given options gets: how likely each option is, and what it cost to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge_mllm.answer.timings import ImageUsage
from edge_mllm.bundle.spec import Engine


@dataclass(frozen=True, kw_only=True)
class OptionScore:
    """One option of a decision. Logarithms are natural."""

    text: str
    probability: float
    """Its share among the options by ``mean_logprob``: options of different lengths compare fairly."""
    raw_probability: float
    """Its share among the options by ``logprob``: what the model would say if it could say nothing but these."""
    logprob: float
    """Log-probability of all its tokens after the prompt."""
    mean_logprob: float
    """The same divided by the number of tokens."""
    tokens: int
    """Tokens that were scored; of a whole answer the one that ends it is among them."""
    empty_logprob: float | None = None
    """``logprob`` with empty pictures; None where nothing was calibrated."""


@dataclass(frozen=True, kw_only=True)
class DecisionUsage:
    """Token counts of one decision."""

    prompt_tokens: int
    """All tokens of the prompt, visual ones included."""
    image_tokens: int
    """Visual tokens of the prompt."""
    reused_tokens: int
    """Prompt tokens whose keys and values were still in the cache."""
    option_tokens: int
    """Tokens of options that went through the decoder."""
    option_runs: int
    """Runs of the decoder that they took."""


@dataclass(frozen=True, kw_only=True)
class DecisionTimings:
    """Wall-clock seconds of one decision."""

    load_s: float
    """Opening the model, plus the tower where this decision was the first to need it."""
    preprocess_s: float
    """Reading, resizing and tiling the pictures; 0 where an earlier question did it."""
    vision_s: float
    """The tower."""
    prefill_s: float
    """The decoder over the prompt."""
    options_s: float
    """The decoder over what follows the first token of the options."""
    calibration_s: float
    """The same question about empty pictures, where that was asked for and not known yet."""
    total_s: float
    """From the question to its result, calibration included, without loading."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A question about pictures, decided between options."""

    question: str
    options: tuple[OptionScore, ...]
    """In the order in which they were given."""
    calibrated: bool
    """Whether what the model says of empty pictures was taken off."""
    usage: DecisionUsage
    images: tuple[ImageUsage, ...]
    timings: DecisionTimings
    model: str
    engine: Engine

    @property
    def best(self) -> OptionScore:
        """The option with the highest probability; of equal ones the first."""
        return max(self.options, key=lambda option: option.probability)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that ``decide --json`` prints; its keys are part of the interface."""
        document = {"question": self.question, "best": self.best.text} | asdict(self)
        document["options"] = [asdict(option) for option in self.options]
        document["images"] = list(document["images"])
        if not self.calibrated:
            for option in document["options"]:
                del option["empty_logprob"]
        return document


def shares(logprobs: Sequence[float]) -> list[float]:
    """Log-probabilities as shares of their sum."""
    weights = np.exp(np.asarray(logprobs) - np.max(logprobs))
    return [float(share) for share in weights / weights.sum()]
