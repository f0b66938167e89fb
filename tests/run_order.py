"""Which files of tests are started first, and how long the tests of every folder took.

A worker takes a whole file at a time. The longest ones go first, so that no worker sits on one of them at the end while
the other has nothing left. ``pytest --note-longest`` writes their list anew after a run of all tests.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("longest_first.txt")
_SHARE = 0.004
"""Of the whole time; a file that takes less is not listed."""


def longest_first() -> list[str]:
    """Files below the root of the repository."""
    return LIST.read_text(encoding="utf-8").split()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--note-longest", action="store_true", help=f"write {LIST.name} from the times of this run")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {file: place for place, file in enumerate(longest_first())}
    items.sort(key=lambda item: places.get(_file(item.nodeid), len(places)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    files = seconds_by_file(terminalreporter)
    total = sum(files.values())
    if terminalreporter.config.getoption("--note-longest"):
        listed = [file for file, seconds in files.most_common() if seconds > _SHARE * total]
        LIST.write_text("\n".join(listed) + "\n", encoding="utf-8")
    folders: Counter[str] = Counter()
    for file, seconds in files.items():
        folders[str(Path(file).parent)] += seconds
    if len(folders) < 2:
        return
    terminalreporter.section("seconds of all workers by folder, and of the longest files")
    for name, seconds in [*folders.most_common(), *files.most_common(25)]:
        terminalreporter.write_line(f"{seconds:8.1f} {seconds / total:6.1%}  {name}")


def seconds_by_file(terminalreporter: pytest.TerminalReporter) -> Counter[str]:
    """Set-up, test and what comes after it."""
    found: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                found[_file(report.nodeid)] += report.duration
    return found


def _file(node: str) -> str:
    return node.partition("::")[0]
