"""``edge-mllm doctor``: what this machine can do and what slows it down."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import typer

from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.options.output import JsonOptions
from edge_mllm.cli.terminal.errors import plain_errors

if TYPE_CHECKING:
    from edge_mllm.measure.doctor.facts import Finding

_MARKS = {
    "ok": ("green", "ok"),
    "info": ("dim", "info"),
    "warning": ("yellow", "warning"),
    "problem": ("bold red", "problem"),
}


@plain_errors
@grouped
def doctor(*, output: JsonOptions) -> None:
    """Look at this machine: what it can do, what slows it down, and what to do about it.

    Exits 1 when there is a problem; warnings do not count.
    """
    from edge_mllm.measure.doctor.diagnosis import diagnose
    from edge_mllm.measure.doctor.gathering import gather_facts

    findings = diagnose(gather_facts())
    healthy = all(finding.status != "problem" for finding in findings)
    if output.wanted:
        output.write({"healthy": healthy, "findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        _show(findings)
    if not healthy:
        raise typer.Exit(1)


def _show(findings: list[Finding]) -> None:
    from rich.text import Text

    from edge_mllm.cli.terminal.console import wide_console
    from edge_mllm.cli.terminal.tables import hanging

    console = wide_console()
    topics = max((len(finding.topic) for finding in findings), default=0) + 2
    for finding in findings:
        style, mark = _MARKS[finding.status]
        line = Text(hanging(f"{mark:9}{finding.topic:{topics}}", finding.detail, console.width))
        line.stylize(style, 0, len(mark))
        console.print(line, soft_wrap=True)
        if finding.remedy:
            console.print(
                hanging(" " * (9 + topics) + "-> ", finding.remedy, console.width), style="cyan", soft_wrap=True
            )
