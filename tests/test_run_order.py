"""The list of the longest files names files that are there, and its files are started first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from run_order import longest_first, pytest_collection_modifyitems

ROOT = Path(__file__).parents[1]


def test_every_listed_file_is_there_and_named_once() -> None:
    files = longest_first()
    assert len(set(files)) == len(files) > 10
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_tests_of_a_file_stay_together_in_their_order() -> None:
    first, second = longest_first()[:2]
    nodes = ["tests/a.py::one", f"{second}::two", f"{first}::three", f"{second}::four", f"{first}::five"]
    items = [SimpleNamespace(nodeid=node) for node in nodes]
    pytest_collection_modifyitems(items)  # type: ignore[arg-type]
    assert [item.nodeid for item in items] == [nodes[2], nodes[4], nodes[1], nodes[3], nodes[0]]
