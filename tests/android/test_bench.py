"""What core measures is a file of edge-mllm bench: of its schema, with its figures, and merged by its report."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from android.conftest import ROOT
from typer.testing import CliRunner

from edge_mllm.cli.main import app
from edge_mllm.machine.fingerprint import fingerprint
from edge_mllm.measure.bench.measure import Plan, run_grid
from edge_mllm.measure.bench.report import caption
from edge_mllm.measure.bench.result import read_result, result_to_dict

_SCHEMA = json.loads((ROOT / "edge_mllm" / "measure" / "bench" / "schema.json").read_text("utf-8"))


def _same(found: Any, expected: Any, place: str = "") -> None:
    """Equal but for the last digits of floats."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for name, value in expected.items():
            _same(found[name], value, f"{place}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for number, value in enumerate(expected):
            _same(found[number], value, f"{place}[{number}]")
    else:
        assert found == (pytest.approx(expected, rel=1e-9) if isinstance(expected, float) else expected), place


def test_the_result_is_one_of_bench_and_merges(core_script: Path, tmp_path: Path) -> None:
    """All that bench derives from the samples is the same; the machine has the id that Python gives it."""
    jsonschema = pytest.importorskip("jsonschema")
    file, other = tmp_path / "phone.json", tmp_path / "python.json"
    options = ["--image-size", "320x240", "--answer-tokens", "6", "--prompt-tokens", "9", "--warmup", "0"]
    command = [core_script, "bench", *options, "--repeat", "3", "--threads", "1", "-o", file]
    subprocess.run(command, check=True, capture_output=True)
    written = json.loads(file.read_text("utf-8"))
    jsonschema.Draft202012Validator(_SCHEMA).validate(written)
    result = read_result(file)
    _same(written, json.loads(json.dumps(result_to_dict(result))))
    (run,) = result.runs
    assert run.case.prompt_tokens == 9 and run.counts.completion_tokens == 6 and len(run.samples) == 3
    assert (run.case.image_width, run.case.image_height, run.counts.tiles) == (320, 240, 5)
    assert all(sample.reused_tokens == 0 and sample.residual < 0.9 for sample in run.samples)
    assert all(sample.second_ttft and sample.second_ttft < sample.ttft for sample in run.samples)
    here = fingerprint(peaks=False)
    assert (result.machine.id, result.machine.processor) == (here.id, here.processor)
    assert "Python" not in caption(result) and "onnxruntime 1.26.0" in caption(result)
    plan = Plan(warmup=0, repeat=1, loads=0, second=False, peaks=False)
    measured = run_grid([replace(run.case, engine="onnx", threads=1)], plan)
    other.write_text(json.dumps(result_to_dict(measured)), "utf-8")
    done = CliRunner().invoke(app, ["bench", "report", str(file), str(other), "--csv"])
    lines = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [line["model"] for line in lines] == ["starter", "starter"] and lines[0]["machine"] == lines[1]["machine"]
    for name in ("model_sha256", "tiles", "visual_tokens", "prompt_tokens", "answer_tokens", "engine", "image_width"):
        assert lines[0][name] == lines[1][name] != "", name


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--image-size", "large"], 2, "--image-size is WIDTHxHEIGHT"),
        (["--image-size", "0x5"], 1, "the picture's width is 0; it must be between 1 and 16384"),
        (["--answer-tokens", "1"], 1, "answer_tokens is 1; it must be between 2 and 1000000"),
    ],
)
def test_what_cannot_be_measured(core_script: Path, options: list[str], code: int, said: str) -> None:
    done = subprocess.run(
        [core_script, "bench", "--warmup", "0", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == code and said in done.stderr and done.stdout == ""
