"""Measurements on standard output, as a table or for programs, and into files."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_mllm.cli.options.output import JsonOptions
from edge_mllm.errors import SettingError

if TYPE_CHECKING:
    from edge_mllm.measure.bench.result import Result


@dataclass(frozen=True, kw_only=True)
class Shown(JsonOptions):
    """Forms that results are shown in; a group of options (:mod:`edge_mllm.cli.options.groups`).

    Raises:
        SettingError: two forms are asked for on standard output.
    """

    as_csv: Annotated[bool, typer.Option("--csv", help="One line per run on standard output.")] = False
    as_md: Annotated[bool, typer.Option("--md", help="Markdown tables on standard output.")] = False
    plot: Annotated[Path | None, typer.Option("--plot", help="Where the time went, as .png or .svg.")] = None

    def __post_init__(self) -> None:
        if self.wanted + self.as_csv + self.as_md > 1:
            raise SettingError("--json, --csv and --md all write to standard output; take one")
        _check_place(self.plot)


@dataclass(frozen=True, kw_only=True)
class Wanted(Shown):
    """As :class:`Shown`, and files of the result."""

    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the result file there.")] = None
    submit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it without paths, for people to send; nothing is sent by itself."),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_place(self.out)
        _check_place(self.submit)


def _check_place(file: Path | None) -> None:
    if file is not None and not file.parent.is_dir():
        raise SettingError(f"there is no directory '{file.parent}' to write to")


def write_results(results: Sequence[Result], wanted: Shown) -> None:
    """Write what is asked for; files first, so that a broken pipe loses nothing."""
    from edge_mllm.measure.bench.report import to_csv
    from edge_mllm.measure.bench.result import result_to_dict

    data = [result_to_dict(result) for result in results]
    if isinstance(wanted, Wanted):
        if wanted.out is not None:
            _write_file(wanted.out, data[0])
        if wanted.submit is not None:
            _write_to_send(wanted.submit, results[0])
    if wanted.plot is not None:
        from edge_mllm.measure.bench.plot import plot_stages

        plot_stages(results, wanted.plot)
    if wanted.wanted:
        wanted.write(data[0] if len(data) == 1 else data)
    elif wanted.as_csv:
        sys.stdout.write(to_csv(results))
    elif wanted.as_md:
        sys.stdout.write(_markdown(results))
    else:
        _show(results)


def _write_file(file: Path, data: dict[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=1) + "\n", "utf-8")


def _write_to_send(file: Path, result: Result) -> None:
    from edge_mllm.measure.bench.result import result_to_dict
    from edge_mllm.measure.bench.submit import fit_to_send

    _write_file(file, result_to_dict(fit_to_send(result)))
    where = "the page 'Devices' says where to send it"
    sys.stderr.write(f"edge-mllm: wrote {file} without paths and names; nothing was sent: {where}\n")


def _markdown(results: Sequence[Result]) -> str:
    from edge_mllm.measure.bench.report import caption, ratio_sheets, run_sheet, to_markdown

    captions = list(dict.fromkeys(map(caption, results)))
    tables = [run_sheet(results), *(sheet for result in results for sheet in ratio_sheets(result))]
    return "\n".join([*(f"{line}\n" for line in captions), *map(to_markdown, tables)])


def _show(results: Sequence[Result]) -> None:
    from edge_mllm.cli.terminal.console import wide_console
    from edge_mllm.cli.terminal.tables import show_table, show_text
    from edge_mllm.measure.bench.report import caption, ratio_sheets, run_sheet

    console = wide_console()
    for sheet in (run_sheet(results), *(sheet for result in results for sheet in ratio_sheets(result))):
        numbers = range(1, len(sheet.header))
        show_table(console, sheet.header, sheet.lines, right=[sheet.header[number] for number in numbers])
        console.print()
    for result in results:
        for refusal in result.meters_refused:
            show_text(console, f"energy: {refusal}")
    show_text(console, "\n".join(dict.fromkeys(map(caption, results))))
