"""The tune command, and run with what it kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_mllm.cli.main import app

RUNNER = CliRunner()


def test_run_uses_what_tune_kept_and_says_so(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path))
    ask = ["run", "-m", str(tiny_bundle), "--json", "--max-new-tokens", "2", "What?"]
    before = RUNNER.invoke(app, ask)
    assert before.exit_code == 0 and "tuned" not in json.loads(before.stdout)
    done = RUNNER.invoke(app, ["tune", "-m", str(tiny_bundle), "--json", "--seconds", "5"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    kept = report["kept"]
    assert Path(report["file"]).is_relative_to(tmp_path)
    assert kept["seconds"] <= kept["default_seconds"]
    assert {trial["engine"] for trial in report["trials"]} == {"onnx", "gguf"}
    kept_file = Path(report["file"])
    kept_file.write_text(kept_file.read_text().replace(f'"engine": "{kept["engine"]}"', '"engine": "gguf"'))
    after = json.loads(RUNNER.invoke(app, ask).stdout)
    assert after["engine"] == "gguf"
    assert after["tuned"] == {"engine": "gguf", "threads": kept["threads"], "chunk": kept["chunk"]}
    other = json.loads(RUNNER.invoke(app, [*ask, "--engine", "onnx"]).stdout)
    assert other["engine"] == "onnx" and "tuned" not in other
