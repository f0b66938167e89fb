"""Runs that are interrupted, resumed, refused and reported, with a model that counts what it is asked."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from eval_files import base64_picture, mme_rows, write_json, write_picture, write_tsv
from PIL.Image import Image

from edge_mllm.errors import ContextOverflowError, EngineError, ResultError
from edge_mllm.measure.eval import Reply, RunSettings, compare_files, read_task, run_task, summarise, write_report
from edge_mllm.measure.eval.records import RESULTS, read_results
from edge_mllm.measure.eval.report import headline
from edge_mllm.measure.eval.scoring.yes_no import MME_PERCEPTION

RED = (255, 0, 0)


@dataclass
class Counting:
    """Says yes about red pictures; can fail at its n-th question."""

    name: str = "counting"
    engine: str = "test"
    sha256: str = "0" * 64
    fail_at: int | None = None
    error: type[BaseException] = KeyboardInterrupt
    asked: list[str] = field(default_factory=list)

    def answer(self, question: str, images: Sequence[Image], max_new_tokens: int) -> Reply:
        if len(self.asked) == self.fail_at:
            raise self.error
        self.asked.append(question)
        if "too long" in question:
            raise ContextOverflowError(9000, 8192, 1)
        text = "Yes" if images[0].getpixel((23, 15)) == RED else "No"
        return Reply(text=text, timings={"ttft_s": len(self.asked) / 10}, usage={"completion_tokens": 2})

    def option_logprobs(self, question: str, images: Sequence[Image], options: Sequence[str]) -> list[float]:
        self.asked.append(question)
        return [-float(len(option)) for option in options]


@pytest.fixture
def mme(tmp_path: Path) -> Path:
    return write_tsv(tmp_path / "MME.tsv", mme_rows())


def test_a_run_scores_and_flushes_every_question(mme: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, float]] = []
    results = run_task(read_task(mme), Counting(), RunSettings(), tmp_path / "out", lambda *a: seen.append(a))
    # red pictures: yes, yes; blue: no, no; truth alternates
    assert [r.score for r in results.records] == [1.0, 0.0, 0.0, 1.0]
    assert seen == [(1, 4, 1.0), (2, 4, 0.5), (3, 4, pytest.approx(1 / 3)), (4, 4, 0.5)]
    lines = (tmp_path / "out" / RESULTS).read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["header"] + ["record"] * 4
    assert read_results(tmp_path / "out" / RESULTS) == results


@pytest.mark.parametrize("error", [KeyboardInterrupt, EngineError, MemoryError])
def test_an_interrupted_run_resumes_without_asking_twice(mme: Path, tmp_path: Path, error: type[BaseException]) -> None:
    out = tmp_path / "out"
    first = Counting(fail_at=2, error=error)
    with pytest.raises(error):
        run_task(read_task(mme), first, RunSettings(), out)
    with (out / RESULTS).open("a") as file:
        file.write('{"kind": "record", "index": "2", "sco')  # killed in the middle of a line
    second = Counting()
    results = run_task(read_task(mme), second, RunSettings(), out)
    assert len(first.asked) + len(second.asked) == 4
    assert not set(first.asked) & set(second.asked)
    whole = run_task(read_task(mme), Counting(), RunSettings(), tmp_path / "whole")
    assert [(r.index, r.reply, r.score) for r in results.records] == [
        (r.index, r.reply, r.score) for r in whole.records
    ]
    third = Counting()
    assert run_task(read_task(mme), third, RunSettings(), out).records == results.records
    assert third.asked == []


def test_a_changed_model_task_or_setting_is_refused(mme: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_task(read_task(mme), Counting(), RunSettings(), out)
    with pytest.raises(ResultError, match=r"model_sha256 was '0+', is '1+'"):
        run_task(read_task(mme), Counting(sha256="1" * 64), RunSettings(), out)
    with pytest.raises(ResultError, match="suffix was '', is 'Briefly'"):
        run_task(read_task(mme), Counting(), RunSettings(suffix="Briefly"), out)
    mme.write_text(mme.read_text().replace("cat", "cow"))
    with pytest.raises(ResultError, match="task_sha256 was"):
        run_task(read_task(mme), Counting(), RunSettings(), out)
    assert len(read_results(out / RESULTS).records) == 4


def test_broken_rows_are_left_out_and_refused_ones_count_as_wrong(tmp_path: Path) -> None:
    row = {"index": 0, "image": base64_picture("red"), "question": "Is it red?", "answer": "Yes"}
    rows = [
        row,
        row | {"index": 1, "answer": ""},
        row | {"index": 2, "image": "x" * 99},
        row | {"index": 3, "question": "Is it too long?"},
    ]
    results = run_task(read_task(write_tsv(tmp_path / "t.tsv", rows)), Counting(), RunSettings(), tmp_path / "out")
    by_index = {record.index: record for record in results.records}
    assert by_index["1"].score is None
    again = Counting()
    resumed = run_task(read_task(tmp_path / "t.tsv"), again, RunSettings(), tmp_path / "out")
    assert resumed == results and not again.asked
    assert by_index["2"].score is None
    assert "bad base64" in by_index["2"].error
    assert by_index["3"].score == 0.0
    summary = summarise(results)
    assert summary["overall"]["questions"] == 2
    assert summary["overall"]["score"] == 0.5
    assert {entry["index"] for entry in summary["broken"]} == {"1", "2"}
    assert [entry["index"] for entry in summary["refused"]] == ["3"]
    assert headline(summary).endswith("1 unparsed, 1 refused, 2 broken.")


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    path = tmp_path / RESULTS
    with pytest.raises(ResultError, match="No such file"):
        read_results(path)
    path.write_text("hello\n")
    with pytest.raises(ResultError, match="no result file"):
        read_results(path)


def test_mme_figures_and_totals(tmp_path: Path) -> None:
    rows = [
        row | {"index": 10 * i + int(row["index"]), "category": name}
        for i, name in enumerate(MME_PERCEPTION)
        for row in [r | {"image": str(10 * i)} if r["image"] == "0" else r for r in mme_rows()[:2]]
    ]
    rows[1]["answer"] = "Yes"  # both questions of the first picture are answered right
    task = read_task(write_tsv(tmp_path / "MME.tsv", rows))
    summary = summarise(run_task(task, Counting(), RunSettings(), tmp_path / "out"))
    assert summary["categories"][MME_PERCEPTION[0]]["mme_score"] == 200.0
    assert (
        summary["categories"]["OCR"] | {"accuracy": 0.5, "group_score": 0.0, "mme_score": 50.0}
        == summary["categories"]["OCR"]
    )
    assert summary["mme"] == {"perception": 200.0 + 9 * 50.0}  # no cognition subtask is there, so no cognition total
    assert summary["overall"]["group_score"] == pytest.approx(0.1)


def test_descriptions_and_questions_of_one_file(tmp_path: Path) -> None:
    write_picture(tmp_path / "image" / "AMBER_1.jpg", "blue")
    asked = [{"id": 1, "image": "AMBER_1.jpg", "query": "Describe this image."}]
    asked += [{"id": 2, "image": "AMBER_1.jpg", "query": "Is there a dog?"}]
    write_json(tmp_path / "query" / "query_all.json", asked)
    truths = [{"id": 1, "type": "generative", "truth": ["grass"], "hallu": ["sea"]}]
    write_json(tmp_path / "annotations.json", [*truths, {"id": 2, "type": "existence", "truth": "no"}])
    write_json(tmp_path / "relation.json", {"grass": ["ground"], "sea": [], "sun": []})

    class Describing(Counting):
        def answer(self, question: str, images: Sequence[Image], max_new_tokens: int) -> Reply:
            if "Describe" in question:
                return Reply(text="The sun over the sea and the ground.")
            return super().answer(question, images, max_new_tokens)

    out = tmp_path / "out"
    task = read_task(tmp_path / "query" / "query_all.json", tmp_path / "image")
    summary = summarise(run_task(task, Describing(), RunSettings(), out))
    assert summary["overall"]["score"] == 0.5
    figures = summary["categories"]["generative"]
    assert {name: round(figures[name], 3) for name in ("chair", "cover", "hal", "cog")} == {
        "chair": 0.667,
        "cover": 1.0,
        "hal": 1.0,
        "cog": 1.0,
    }
    assert "chair" not in summary["categories"]["existence"] and summary["categories"]["existence"]["f1_no"] == 1.0
    assert summary == summarise(read_results(out / RESULTS))
    write_report(summary, out)
    assert "chair" in (out / "report.md").read_text() and ",chair," in (out / "report.csv").read_text()


def test_reports_in_three_forms(mme: Path, tmp_path: Path) -> None:
    results = run_task(read_task(mme), Counting(), RunSettings(), tmp_path / "out")
    summary = summarise(results)
    as_json, as_markdown, as_csv = write_report(summary, tmp_path / "out")
    assert json.loads(as_json.read_text()) == json.loads(json.dumps(summary))
    assert summary["timings_median"] == {"ttft_s": 0.25}
    assert summary["completion_tokens"] == 8
    lines = list(csv.DictReader(io.StringIO(as_csv.read_text())))
    assert [(line["level"], line["name"], line["questions"]) for line in lines] == [
        ("overall", "", "4"),
        ("category", "existence", "2"),
        ("category", "scene", "2"),
    ]
    assert float(lines[1]["f1"]) == pytest.approx(2 / 3)
    text = as_markdown.read_text()
    assert text.startswith("# MME: counting\n\n50.0 % of 4 questions (95 % interval")
    assert "| existence | 2 | 50.0 % |" in text
    assert "ttft_s 0.25" in text


def test_ranking_by_log_probability(tmp_path: Path) -> None:
    row = {"index": 0, "image": base64_picture("red"), "question": "?", "A": "long text", "B": "no", "answer": "B"}
    path = write_tsv(tmp_path / "t.tsv", [row])
    results = run_task(read_task(path), Counting(), RunSettings(scorer="choice_logprob"), tmp_path / "out")
    assert results.records[0].logprobs == (-9.0, -2.0)
    assert results.records[0].score == 1.0
    assert read_results(tmp_path / "out" / RESULTS) == results


def test_a_limited_run_asks_the_same_sample(mme: Path, tmp_path: Path) -> None:
    model = Counting()
    results = run_task(read_task(mme), model, RunSettings(limit=2, seed=5), tmp_path / "a")
    again = run_task(read_task(mme), Counting(), RunSettings(limit=2, seed=5), tmp_path / "b")
    assert [r.index for r in results.records] == [r.index for r in again.records]
    assert len(model.asked) == 2


class Always(Counting):
    """Says the same to everything."""

    word = "Yes"

    def answer(self, question: str, images: Sequence[Image], max_new_tokens: int) -> Reply:
        return Reply(text=self.word)


def test_paired_comparison(tmp_path: Path) -> None:
    row = {"image": base64_picture("red"), "question": "Is it?", "category": "c"}
    rows = [row | {"index": i, "answer": "Yes" if i < 30 else "No"} for i in range(40)]
    path = write_tsv(tmp_path / "t.tsv", rows)
    run_task(read_task(path), Counting(), RunSettings(), tmp_path / "a")
    no = Always(name="no")
    no.word = "No"
    run_task(read_task(path), no, RunSettings(), tmp_path / "b")
    result = compare_files(tmp_path / "a", tmp_path / "b" / RESULTS)
    assert (result.score_a, result.score_b, result.difference) == (0.75, 0.25, -0.5)
    assert (result.lost, result.won, result.questions, result.left_out) == (30, 10, 40, 0)
    assert result.mcnemar_p == pytest.approx(0.0022, abs=1e-4)
    low, high = result.interval_95
    assert -0.80 < low < -0.5 < high < -0.15
    assert compare_files(tmp_path / "a", tmp_path / "b") == result
    assert result.line.startswith("t: counting (test) 75.0 % -> no (test) 25.0 %: -50.00 points (95 % interval -")
    assert result.line.endswith("40 questions, 30 lost, 10 won")


def test_a_comparison_with_itself_finds_nothing(mme: Path, tmp_path: Path) -> None:
    run_task(read_task(mme), Counting(), RunSettings(), tmp_path / "a")
    result = compare_files(tmp_path / "a", tmp_path / "a")
    assert (result.difference, result.interval_95, result.mcnemar_p, result.same_reply) == (0.0, (0.0, 0.0), 1.0, 4)


def test_no_p_value_for_graded_scores(tmp_path: Path) -> None:
    rows = [{"index": i, "image": base64_picture("red"), "question": "?", "answer": "Yesx"} for i in range(2)]
    path = write_tsv(tmp_path / "t.tsv", rows)
    for name in ("a", "b"):
        run_task(read_task(path), Counting(), RunSettings(scorer="anls"), tmp_path / name)
    result = compare_files(tmp_path / "a", tmp_path / "b")
    assert result.score_a == 0.75
    assert result.mcnemar_p is None
    assert "McNemar" not in result.line


def test_results_of_different_tasks_do_not_compare(mme: Path, tmp_path: Path) -> None:
    run_task(read_task(mme), Counting(), RunSettings(), tmp_path / "a")
    run_task(read_task(mme), Counting(), RunSettings(scorer="contains"), tmp_path / "b")
    with pytest.raises(ResultError, match="another scorer"):
        compare_files(tmp_path / "a", tmp_path / "b")
    mme.write_text(mme.read_text().replace("cat", "cow"))
    run_task(read_task(mme), Counting(), RunSettings(), tmp_path / "c")
    with pytest.raises(ResultError, match="another task file"):
        compare_files(tmp_path / "a", tmp_path / "c")
