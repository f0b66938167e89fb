"""Options of a decision, which ``decide`` and ``batch`` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

if TYPE_CHECKING:
    from edge_mllm.answer.budget import ImageBudget
    from edge_mllm.answer.deciding.settings import DecideSettings


@dataclass(frozen=True, kw_only=True)
class DecisionOptions:
    """How to decide; a group of options."""

    SECTIONS: ClassVar = {"Decision": ("choices", "choice", "whole", "calibrate")}

    choices: Annotated[
        str | None, typer.Option("--options", metavar="A,B,...", help="The possible answers, between commas.")
    ] = None
    choice: Annotated[
        list[str] | None,
        typer.Option(
            "--option", metavar="TEXT", help="One possible answer, commas and all; may be given several times."
        ),
    ] = None
    whole: Annotated[
        bool,
        typer.Option(
            "--whole/--beginning",
            help="Score options as whole answers, or as what an answer begins with: faster for options of one token.",
        ),
    ] = True
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Take off what the model says of an empty picture of the same size.")
    ] = False

    def typed(self) -> tuple[str, ...]:
        """The options, in the order in which they stand here."""
        return (*(() if self.choices is None else self.choices.split(",")), *(self.choice or ()))

    def settings(self, budget: ImageBudget) -> DecideSettings:
        """What was typed, checked."""
        from edge_mllm.answer.deciding.settings import DecideSettings

        return DecideSettings(whole=self.whole, calibrate=self.calibrate, budget=budget)
