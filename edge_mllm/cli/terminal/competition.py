"""Warnings that other programs compete with a measurement."""

from __future__ import annotations

import typer


def warn_of_competition() -> None:
    """Say on standard error, before minutes are spent, that other programs keep this machine busy."""
    from edge_mllm.machine.cpu import read_processor
    from edge_mllm.machine.others import competes, others_now

    cores = others_now()
    if cores is not None and competes(cores):
        usable = read_processor().usable_cores
        typer.echo(
            f"warning: other programs use {cores:.1f} of {usable} cores, so times will be too long and vary; "
            "stop them for results that count",
            err=True,
        )


def tell_competition(cores: float | None) -> None:
    """Say on standard error that what was just measured was measured beside other programs."""
    from edge_mllm.machine.others import competes

    if competes(cores):
        typer.echo(f"warning: other programs used {cores:.1f} cores meanwhile; the results are marked", err=True)
