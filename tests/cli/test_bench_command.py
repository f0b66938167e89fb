"""``bench`` and ``doctor`` as a user starts them, on a tiny model of true structure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

OPTIONS = ("--engine", "onnx", "--image-size", "100x80", "--answer-tokens", "24", "--repeat", "3", "--loads", "1")


def edge_mllm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_mllm", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def result_file(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("bench") / "result.json"
    done = edge_mllm("bench", "-m", tiny_bundle, *OPTIONS, "-o", file, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(file.read_text())
    return file


def test_the_result_keeps_to_the_schema(result_file: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[2] / "edge_mllm/measure/bench/schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(result_file.read_text()))


def test_stages_counts_and_memory_are_there(result_file: Path) -> None:
    result = json.loads(result_file.read_text())
    (run,) = result["runs"]
    assert len(run["samples"]) == 3
    assert run["counts"]["completion_tokens"] == 24
    assert run["counts"]["tiles"] > 1
    assert run["counts"]["visual_tokens"] > 0
    for sample in run["samples"]:
        assert all(seconds > 0 for seconds in sample["stages"].values())
        assert sum(sample["stages"].values()) <= sample["end_to_end"]
        assert sample["ttft"] <= sample["end_to_end"]
        assert sample["reused_tokens"] < run["counts"]["prompt_tokens"] - run["counts"]["visual_tokens"]
    assert run["loads"]["cold"][0] > 0
    assert run["memory"]["before"]["rss"] < run["memory"]["loaded"]["rss"] <= run["memory"]["peak_bytes"]
    assert result["machine"]["peaks"]["int8_ops_per_s"] > 1e8


def test_reports_are_merged(result_file: Path, tmp_path: Path) -> None:
    done = edge_mllm("bench", "report", result_file, result_file, "--csv")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    table = edge_mllm("bench", "report", result_file, "--md", "--plot", tmp_path / "p.svg")
    assert table.returncode == 0, table.stderr
    assert "| end to end |" in table.stdout
    assert (tmp_path / "p.svg").stat().st_size > 1000


def test_a_model_against_itself(tiny_bundle: Path) -> None:
    pair = (f"{tiny_bundle}@onnx", f"{tiny_bundle}@onnx")
    done = edge_mllm("bench", "--compare", *pair, *OPTIONS[2:], "--repeat", "2", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["runs"]) == 2
    ratio = result["comparisons"][0]["ratios"]["end_to_end"]
    assert ratio["low"] <= ratio["ratio"] <= ratio["high"]
    assert ratio["n"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-m", "/no/such/model"), "no model at"),
        (("--image-size", "big"), "WIDTHxHEIGHT"),
        (("--threads", "two"), "whole numbers"),
        (("--json", "--csv"), "take one"),
        (("-o", "/no/such/directory/r.json"), "no directory"),
        (("report", "/no/such/file.json"), "bad result file"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], words: str) -> None:
    done = edge_mllm("bench", *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


def test_doctor_speaks_json() -> None:
    done = edge_mllm("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["healthy"] else 1)
    assert {"processor", "onnxruntime", "memory"} <= {finding["topic"] for finding in report["findings"]}
