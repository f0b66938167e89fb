"""Lines of the log while a spinner turns."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from rich.console import Console
from rich.live import Live

from edge_mllm.cli.terminal.errors import LogLines


def test_a_line_stands_above_the_spinner(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    lines = LogLines()
    with Live("turning", console=Console(file=terminal, force_terminal=True, width=80), auto_refresh=False):
        lines.emit(logging.makeLogRecord({"msg": "the tower runs on %s", "args": ("ort",)}))
    lines.emit(logging.makeLogRecord({"msg": "after it"}))
    shown = terminal.getvalue()
    assert "\x1b[2Kthe tower runs on ort\nturning" in shown
    assert shown.endswith("after it\n")


def test_options_are_named_as_they_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    LogLines().emit(logging.makeLogRecord({"msg": "name one with `vision_engine`"}))
    assert capsys.readouterr().err == "name one with --vision-engine\n"


def test_a_closed_stream_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    LogLines().emit(logging.makeLogRecord({"msg": "nobody reads this"}))
