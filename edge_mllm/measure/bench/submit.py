"""A result that may be given away: of paths only the last part stays, and nothing that names a person."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath

from edge_mllm.errors import SettingError
from edge_mllm.measure.bench.result import Case, Result

LEAST_REPEAT = 3
"""Measured answers per case; a median of fewer tells little of a device that others cannot ask."""


def check_repeat(repeat: int) -> None:
    """See that enough is going to be measured.

    Raises:
        SettingError: It is not.
    """
    if repeat < LEAST_REPEAT:
        raise SettingError(f"a result that is sent needs `repeat` of {LEAST_REPEAT} or more, got {repeat}")


def fit_to_send(result: Result) -> Result:
    """A result without the places of its files; how busy the device was stays in it."""
    runs = tuple(replace(run, case=_placeless(run.case, run.model.name)) for run in result.runs)
    return replace(result, runs=runs, meters_refused=())


def _placeless(case: Case, name: str) -> Case:
    mmproj = None if case.mmproj is None else PurePath(case.mmproj).name
    return replace(case, model=name, mmproj=mmproj)
