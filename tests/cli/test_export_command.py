"""The export command: options, and what it says when something is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import edge_mllm_export
from edge_mllm.cli.main import app
from edge_mllm_export import ExportOptions, Limits
from edge_mllm_export.errors import SourceError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    seen: list[tuple[Any, ...]] = []

    def stop_here(*arguments: Any) -> None:
        seen.append(arguments[:3])
        raise SourceError("nowhere", "this is a test")

    monkeypatch.setattr(edge_mllm_export, "export_bundle", stop_here)
    return seen


def test_defaults(calls: list[tuple[Any, ...]]) -> None:
    done = CliRunner().invoke(app, ["export", "here", "-o", "there.edge"])
    assert calls == [("here", Path("there.edge"), ExportOptions())]
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr == "edge-mllm: cannot export 'nowhere': this is a test\n"


def test_every_option_arrives(calls: list[tuple[Any, ...]]) -> None:
    line = "export here -o there.edge --format onnx --quant int8_b32 --vision fp16 --mmproj --no-verify --force"
    limits = "--allow-loss --min-top1 0.5 --max-kl 2 --min-cosine 0.9 --no-calibration"
    CliRunner().invoke(app, [*line.split(), *limits.split()])
    options = calls[0][2]
    assert options == ExportOptions(
        format="onnx",
        quant="int8_b32",
        vision="fp16",
        mmproj=True,
        verify=False,
        force=True,
        allow_loss=True,
        calibration=False,
        limits=Limits(min_top1=0.5, max_kl=2.0, min_cosine=0.9),
    )


def test_output_is_required() -> None:
    assert CliRunner().invoke(app, ["export", "here"]).exit_code == 2


def test_missing_extra_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optimum" else found(name))
    done = CliRunner().invoke(app, ["export", "here", "-o", "there.edge"])
    assert done.exit_code == 1
    assert done.stderr == "edge-mllm: optimum is not installed; type: pip install 'edge-mllm[export]'\n"


def test_absent_source_is_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(tmp_path / "absent"), "-o", str(tmp_path / "x.edge")])
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith("edge-mllm: cannot export ")
    assert list(tmp_path.iterdir()) == []
