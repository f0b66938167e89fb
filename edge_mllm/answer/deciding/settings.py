"""How to decide: options by name, as one checked value, and the answers to choose from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from edge_mllm.answer.budget import ImageBudget
from edge_mllm.answer.request import PictureOptions, budget_of
from edge_mllm.arguments import require, require_known
from edge_mllm.errors import SettingError


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
