"""Limits on memory and on the wait for the first token, held before anything is encoded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Literal

from edge_mllm.arguments import require_numbers
from edge_mllm.errors import PromptError, SettingError

if TYPE_CHECKING:
    from edge_mllm.answer.answer_plan import AnswerPlan

Limit = Literal["max_memory", "max_ttft"]
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an answer may take.

    Raises:
        SettingError: A value is not above zero.
    """

    max_memory: int | None = None
    """Most resident bytes of the process while the answer is made."""
    max_ttft_s: float | None = None
    """Most seconds to the first token, loading apart."""

    def __post_init__(self) -> None:
        require_numbers(Real, max_memory=self.max_memory, max_ttft=self.max_ttft_s)
        for name, value in {"max_memory": self.max_memory, "max_ttft": self.max_ttft_s}.items():
            if value is not None and not value > 0:
                raise SettingError(f"{name} is {value}; it must be above 0")

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return self.max_memory is not None or self.max_ttft_s is not None

    def broken(self, plan: AnswerPlan, spent_s: float = 0.0) -> Limit | None:
        """The first limit that a plan does not keep.

        Args:
            plan: Of the answer.
            spent_s: Seconds of the wait that are over.
        """
        if self.max_memory is not None and plan.memory.peak_bytes > self.max_memory:
            return "max_memory"
        if self.max_ttft_s is not None and spent_s + (plan.ttft_s or 0.0) > self.max_ttft_s:
            return "max_ttft"
        return None


class LimitError(PromptError):
    """An answer would take more than it may, however coarsely its pictures are tiled."""

    def __init__(self, limit: Limit, plan: AnswerPlan, limits: Limits, spent_s: float = 0.0) -> None:
        tokens = f"{plan.prompt_tokens} prompt tokens, {plan.image_tokens} of them for pictures"
        if limit == "max_memory":
            needs = f"about {megabytes(plan.memory.peak_bytes)} of memory for {tokens} ({plan.memory})"
            allowed = f"max_memory allows {megabytes(limits.max_memory or 0)}"
            advice = "allow more, or try `low_memory`, `n_ctx`, a shorter answer or fewer pictures"
        else:
            parts = {"tower": plan.vision_s, "prefill": plan.prefill_s, "already spent": spent_s}
            told = ", ".join(f"{name} {_milliseconds(seconds or 0.0)}" for name, seconds in parts.items())
            needs = f"about {_milliseconds(spent_s + (plan.ttft_s or 0.0))} to the first token of {tokens} ({told})"
            allowed = f"max_ttft allows {_milliseconds(limits.max_ttft_s or 0.0)}"
            advice = "allow more, or use fewer pictures or a shorter prompt"
        super().__init__(f"the answer needs {needs}; {allowed}: {advice}")
        self.limit, self.plan = limit, plan


def parse_bytes(text: str) -> int:
    """A size such as ``2GB``, ``512 MiB``, ``1.5g`` or a plain number in bytes.

    Raises:
        SettingError: It is none, or nothing.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", text.lower())
    if found is None:
        raise SettingError(f"a size is a number with a unit, such as 2GB or 512MiB; got '{text}'")
    size = int(float(found[1]) * _UNITS[found[2] or ""])
    if size < 1:
        raise SettingError(f"a size must be above 0; got '{text}'")
    return size


def megabytes(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / 1e6:.0f} MB"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms"
