"""The eval command: what it prints, where it writes, how it fails."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from eval_files import mme_rows, write_tsv
from typer.testing import CliRunner

from edge_mllm.cli import eval as command
from edge_mllm.cli.main import app
from edge_mllm.measure.eval import Reply
from edge_mllm.measure.eval.scoring.scoring import NAMES


class Yes:
    """Says yes."""

    name, engine, sha256 = "yes/model", "test", "0" * 64

    def answer(self, question: str, images: Sequence[object], max_new_tokens: int) -> Reply:
        return Reply(text="Yes.")

    def option_logprobs(self, question: str, images: Sequence[object], options: Sequence[str]) -> list[float]:
        return [0.0 for _ in options]


@pytest.fixture
def mme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(command, "_answerer", lambda *_: Yes())
    monkeypatch.chdir(tmp_path)
    return write_tsv(tmp_path / "MME.tsv", mme_rows())


def test_one_line_and_a_report(mme: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["eval", str(mme)])
    assert result.exit_code == 0, result.output
    folder = tmp_path / "eval-results" / "MME--yes-model--test"
    first, second = result.stdout.splitlines()
    assert first.startswith("MME, yes/model (test): 50.0 % of 4 questions (95 % interval")
    assert second == f"Report: {folder.relative_to(tmp_path) / 'report.md'}"
    assert {path.name for path in folder.iterdir()} == {"results.jsonl", "report.json", "report.md", "report.csv"}


def test_json_is_all_that_is_on_standard_output(mme: Path) -> None:
    result = CliRunner().invoke(app, ["eval", str(mme), "--json", "--limit", "2", "--out", "here"])
    summary = json.loads(result.stdout)
    assert summary["overall"]["questions"] == 2
    assert summary["run"]["limit"] == 2


def test_compare_prints_one_line_or_json(mme: Path) -> None:
    for name in ("a", "b"):
        assert CliRunner().invoke(app, ["eval", str(mme), "--out", name]).exit_code == 0
    plain = CliRunner().invoke(app, ["eval", "compare", "a", "b"])
    assert plain.stdout.count("\n") == 1
    assert "+0.00 points" in plain.stdout
    values = json.loads(CliRunner().invoke(app, ["eval", "compare", "a", "b", "--json"]).stdout)
    assert values["line"] == plain.stdout.strip()
    assert values["mcnemar_p"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.tsv"], "cannot read the task 'nowhere.tsv': no such file or directory"),
        (["compare", "a"], "compare takes two results, got 1"),
        (["compare", "a", "b"], "cannot use the result 'a': No such file or directory"),
        (["MME.tsv", "other.tsv"], "one task at a time; 'other.tsv' is too much"),
        (["MME.tsv", "--scorer", "bleu"], "no scorer is called 'bleu'"),
        (["MME.tsv", "--scorer", "choice"], "the scorer 'choice' needs options"),
    ],
)
def test_failures_are_one_plain_line(mme: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["eval", *arguments])
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_help_names_every_scorer() -> None:
    text = CliRunner().invoke(app, ["eval", "--help"]).stdout
    assert all(name in text for name in NAMES)


def test_a_reference_excludes_a_bundle(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "MME.tsv", mme_rows())
    result = CliRunner().invoke(app, ["eval", str(path), "--reference", "x", "-m", "y"])
    assert result.exit_code == 1
    assert "leave --model and --engine out" in result.stderr
