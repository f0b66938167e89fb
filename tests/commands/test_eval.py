"""``edge-mllm eval`` from a benchmark file to the printed score, with the bundle that ships and its checkpoint."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from commands.benchmark_sets import (
    ASKED,
    FORMS,
    LAYOUTS,
    NO,
    ROWS,
    TWELVE,
    YES,
    Layout,
    as_json,
    as_parquet,
    as_tsv,
    card_bytes,
    write_card,
    write_json,
    write_table,
)
from commands.command_line import DEMO, ROOT, STARTER, Ended, run_command

pytestmark = pytest.mark.xdist_group("eval-command")
PLAIN = next(layout for layout in LAYOUTS if layout.name == "plain")
CHECKPOINT = ROOT / "starter" / "checkpoint"


def evaluate(*args: object, cwd: Path | None = None) -> Ended:
    """Evaluate on one thread."""
    return run_command("eval", *args, "--threads", 1, cwd=cwd)


@pytest.fixture
def evaluate_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """The installed command in this process, for the many sets of which only the file differs."""
    (script,) = entry_points(group="console_scripts", name="edge-mllm")

    def run(*args: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["edge-mllm", "eval", *map(str, args), "--threads", "1"])
        with pytest.raises(SystemExit) as ended:
            script.load()()
        code = ended.value.code
        assert isinstance(code, int)
        return Ended(code, *capsys.readouterr())

    return run


def records(folder: Path) -> list[dict[str, Any]]:
    """What the result file says of each question."""
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert lines[0]["kind"] == "header"
    return lines[1:]


def assert_three_of_four(done: Ended, name: str, folder: Path, engine: str = "onnx") -> None:
    """The printed line, the files, and what the report says."""
    assert done.code == 0, done.stderr
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{name}, starter ({engine}): 75.0 % of 4 questions (95 % interval ")
    assert second == f"Report: {folder / 'report.md'}"
    assert {path.name for path in folder.iterdir()} == {"results.jsonl", "report.json", "report.md", "report.csv"}
    assert [record["score"] for record in records(folder)] == [1.0, 1.0, 1.0, 0.0]
    assert "75.0 % of 4 questions" in (folder / "report.md").read_text()


@pytest.mark.parametrize(
    ("layout", "form"),
    [
        pytest.param(layout, form, id=f"{layout.name}-{form}")
        for layout in LAYOUTS
        for form in FORMS
        if form != layout.published_form
    ],
)
def test_a_layout_as_a_table_parquet_or_json(
    layout: Layout, form: str, tmp_path: Path, evaluate_here: Callable[..., Ended]
) -> None:
    task = FORMS[form](tmp_path, layout)
    out = tmp_path / "out"
    done = evaluate_here(task, "--out", out)
    assert_three_of_four(done, "set", out)
    report = json.loads((out / "report.json").read_text())
    assert report["run"]["layout"] == layout.name
    assert report["overall"]["score"] == 0.75 and report["broken"] == []


@pytest.mark.parametrize("layout", [each for each in LAYOUTS if each.published], ids=lambda layout: layout.name)
def test_a_set_as_it_is_published(layout: Layout, tmp_path: Path, evaluate_here: Callable[..., Ended]) -> None:
    assert layout.published is not None
    folder = tmp_path / "Set"
    task = layout.published(folder, layout.rows())
    done = evaluate_here(task, "--out", tmp_path / "out")
    assert_three_of_four(done, task.stem if task.is_file() else "Set", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["run"]["layout"] == layout.name


def test_every_layout_of_the_command_is_here() -> None:
    from edge_mllm.measure.eval.readers.layouts import LAYOUTS as KNOWN

    assert {layout.name for layout in LAYOUTS} == {layout.name for layout in KNOWN}


def test_csv_and_json_lines(tmp_path: Path) -> None:
    assert_three_of_four(evaluate(as_tsv(tmp_path / "a", PLAIN, ","), "--out", tmp_path / "x"), "set", tmp_path / "x")
    rows = json.loads(as_json(tmp_path / "b", PLAIN).read_text())
    lines = write_json(tmp_path / "b" / "lines.jsonl", rows)
    assert_three_of_four(evaluate(lines, "--out", tmp_path / "y"), "lines", tmp_path / "y")


def test_parquet_in_parts_in_a_folder(tmp_path: Path) -> None:
    whole = as_parquet(tmp_path / "made", PLAIN)
    (tmp_path / "Set" / "data").mkdir(parents=True)
    for part in range(2):
        (tmp_path / "Set" / "data" / f"test-0000{part}-of-00002.parquet").write_bytes(whole.read_bytes())
    done = evaluate(tmp_path / "Set", "--json", "--out", tmp_path / "out")
    overall = done.document["overall"]
    assert (overall["questions"], overall["score"]) == (8, 0.75)


def test_mme_has_its_scores_by_picture(tmp_path: Path) -> None:
    """Two pictures of two questions each, the second by reference to the first's row: both right, one right."""
    import base64

    cells = [base64.b64encode(card_bytes(YES)).decode(), "0", base64.b64encode(card_bytes(NO)).decode(), "2"]
    asked = "Does it say yes? Please answer yes or no."
    rows = [
        {"index": i, "image": cell, "question": asked, "answer": answer, "category": "OCR"}
        for i, (cell, answer) in enumerate(zip(cells, ("Yes", "Yes", "No", "Yes"), strict=True))
    ]
    done = evaluate(write_table(tmp_path / "MME.tsv", rows), "--out", tmp_path / "out")
    assert_three_of_four(done, "MME", tmp_path / "out")
    assert "groups all right 50.0 %, F1 of yes 80.0 %" in done.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["categories"]["OCR"]["mme_score"] == 125.0


def test_amber_counts_objects_of_a_description(tmp_path: Path) -> None:
    """The description is asked from the model first, so that what it names is known."""
    picture = write_card(tmp_path / "image" / "AMBER_1.jpg", YES)
    said = run_command("run", "-i", picture, "Describe this image.", "--threads", 1).stdout.strip()
    assert said.isalpha()
    asked = [{"id": number, "image": picture.name, "query": "Describe this image."} for number in (1, 2)]
    task = write_json(tmp_path / "data" / "query" / "query_generative.json", asked)
    word = said.lower()
    truths = [{"id": 1, "type": "generative", "truth": [word], "hallu": ["sea"]}]
    truths += [{"id": 2, "type": "generative", "truth": ["grass"], "hallu": [word]}]
    write_json(tmp_path / "data" / "annotations.json", truths)
    write_json(tmp_path / "data" / "relation.json", {"grass": [], "sea": [], word: []})
    done = evaluate(task, "--out", tmp_path / "out", "--json")
    overall = done.document["overall"]
    found = {name: overall[name] for name in ("score", "chair", "cover", "hal", "cog")}
    assert found == {"score": 0.5, "chair": 0.5, "cover": 0.5, "hal": 0.5, "cog": 0.5}


def test_what_eval_asks_is_what_run_answers(tmp_path: Path) -> None:
    """An answer found with `run` is right in `eval`, letter for letter, on each engine, long pictures included."""
    asked = [("label.png", ASKED), ("sign.png", ASKED), ("label.png", "What is the price?")]
    for engine in ("onnx", "gguf"):
        rows = []
        for name, question in asked:
            said = run_command(
                "run", "-i", DEMO / name, question, "--engine", engine, "--json", "--threads", 1
            ).document["text"]
            rows.append({"image": name, "question": question, "answer": said.strip()})
        rows.append(rows[0] | {"answer": "nothing of the kind"})
        task = write_json(tmp_path / f"{engine}.json", rows)
        done = evaluate(
            task, "--engine", engine, "--scorer", "verbatim", "--out", tmp_path / engine,
            "--images", DEMO,
        )  # fmt: skip
        assert_three_of_four(done, engine, tmp_path / engine, engine)


@pytest.mark.parametrize(
    ("scorer", "answers", "score"),
    [
        ("contains", ["2", "3"], 0.5),
        ("contains_formula", ["1 2", "2 1"], 0.5),
        ("exact", ["12.", "1 2"], 0.5),
        ("verbatim", ["12.", "12"], 0.5),
        ("anls", ["1234", "123"], 0.3333),
        ("relaxed", ["12.5", "13"], 0.5),
        ("number", ["12.0", "11"], 0.5),
    ],
)
def test_scorers_of_open_answers(
    scorer: str, answers: list[str], score: float, tmp_path: Path, evaluate_here: Callable[..., Ended]
) -> None:
    """The starter reads "12"."""
    write_card(tmp_path / "c.png", TWELVE)
    rows = [{"image": "c.png", "question": "What is the number?", "answer": answer} for answer in answers]
    done = evaluate_here(write_json(tmp_path / "t.json", rows), "--scorer", scorer, "--json", "--out", tmp_path / "out")
    assert done.document["overall"]["score"] == pytest.approx(score, abs=1e-4)
    assert done.document["run"]["scorer"] == scorer


def test_scorers_that_choose(tmp_path: Path) -> None:
    """The most likely option is what the starter says; yes and no are read from its answers."""
    choose = as_tsv(tmp_path / "a", next(each for each in LAYOUTS if each.name == "vlmevalkit"))
    for scorer in ("choice", "choice_logprob"):
        done = evaluate(choose, "--scorer", scorer, "--out", tmp_path / scorer)
        assert_three_of_four(done, "set", tmp_path / scorer)
    assert all(len(record["logprobs"]) == 2 for record in records(tmp_path / "choice_logprob"))
    done = evaluate(as_json(tmp_path / "b", PLAIN), "--scorer", "yes_no", "--out", tmp_path / "yes_no")
    assert_three_of_four(done, "set", tmp_path / "yes_no")
    objects = evaluate(tmp_path / "b" / "set.json", "--scorer", "objects", "--out", tmp_path / "objects")
    assert (objects.code, len(objects.errors)) == (1, 1) and "needs lists of objects" in objects.stderr


def test_a_model_is_named_and_results_have_a_place_of_their_own(tmp_path: Path) -> None:
    done = evaluate(as_json(tmp_path, PLAIN), "--model", STARTER, "--engine", "gguf", cwd=tmp_path)
    assert done.code == 0, done.stderr
    folder = Path("eval-results") / "set--starter--gguf"
    assert done.stdout.splitlines()[1] == f"Report: {folder / 'report.md'}"
    assert [record["score"] for record in records(tmp_path / folder)] == [1.0, 1.0, 1.0, 0.0]


def test_a_set_of_which_nothing_counts_is_a_failure(tmp_path: Path) -> None:
    """It ended with exit code 0, as if there were a score."""
    task = as_json(tmp_path, PLAIN)
    for picture in tmp_path.rglob("*.png"):
        picture.write_bytes(card_bytes(YES)[:60])
    done = evaluate(task, "--out", tmp_path / "out")
    assert done.code == 1
    assert done.errors[-1].startswith("edge-mllm: no question counted, so there is no score; the report names what")
    assert "No question counts; 4 broken rows." in (tmp_path / "out" / "report.md").read_text("utf-8")


def test_a_sample_is_drawn_by_its_seed(tmp_path: Path) -> None:
    task = as_json(tmp_path, PLAIN)
    drawn = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 3)):
        done = evaluate(task, "--limit", 2, "--seed", seed, "--out", tmp_path / name)
        assert "of 2 questions" in done.stdout
        drawn[name] = [record["index"] for record in records(tmp_path / name)]
    assert drawn["a"] == drawn["b"] != drawn["c"]


def test_length_and_suffix_reach_the_model(tmp_path: Path) -> None:
    task = as_json(tmp_path, PLAIN)
    evaluate(task, "--limit", 1, "--out", tmp_path / "whole")
    done = evaluate(
        task, "--limit", 1, "--out", tmp_path / "cut", "--max-new-tokens", 1, "--suffix", "Say it in a word."
    )
    assert ": 0.0 % of 1 questions" in done.stdout
    (whole,), (cut,) = records(tmp_path / "whole"), records(tmp_path / "cut")
    assert whole["usage"]["completion_tokens"] > cut["usage"]["completion_tokens"] == 1
    assert whole["reply"].startswith(cut["reply"][:2])
    assert cut["usage"]["prompt_tokens"] > whole["usage"]["prompt_tokens"]


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    task = as_json(tmp_path, PLAIN)
    out = tmp_path / "out"
    assert_three_of_four(evaluate(task, "--out", out), "set", out)
    lines = (out / "results.jsonl").read_text().splitlines(keepends=True)
    answered = json.loads(lines[1]) | {"reply": "as it was answered before"}
    (out / "results.jsonl").write_text(lines[0] + json.dumps(answered) + "\n" + lines[2] + lines[3][:20])
    assert_three_of_four(evaluate(task, "--out", out), "set", out)
    found = records(out)
    assert found[0]["reply"] == "as it was answered before"
    assert found[1] == json.loads(lines[2])
    assert [record["index"] for record in found] == ["1", "2", "3", "4"]
    other = evaluate(task, "--out", out, "--max-new-tokens", 5)
    assert (other.code, other.stdout, len(other.errors)) == (1, "", 1)
    assert "max_new_tokens was 64, is 5" in other.stderr


def test_two_results_are_compared(tmp_path: Path) -> None:
    """Cut answers lose the three questions that whole ones get right."""
    task = as_json(tmp_path, PLAIN)
    evaluate(task, "--out", tmp_path / "a")
    evaluate(task, "--out", tmp_path / "b", "--max-new-tokens", 1)
    plain = run_command("eval", "compare", tmp_path / "a", tmp_path / "b")
    assert (plain.code, plain.stderr) == (0, "")
    assert plain.stdout.startswith("set: starter (onnx) 75.0 % -> starter (onnx) 0.0 %: -75.00 points (95 % interval ")
    assert plain.stdout.endswith(", McNemar p = 0.25, 4 questions, 3 lost, 0 won\n")
    values = [
        run_command(
            "eval", "compare", tmp_path / "b", tmp_path / "a" / "results.jsonl", "--json-indent", "--seed", seed
        ).document
        for seed in (1, 1)
    ]
    assert values[0] == values[1]
    assert (values[0]["difference"], values[0]["lost"], values[0]["won"]) == (0.75, 0, 3)


def test_the_checkpoint_answers_as_its_bundle(tmp_path: Path) -> None:
    task = as_json(tmp_path, PLAIN)
    done = evaluate(task, "--reference", CHECKPOINT, "--out", tmp_path / "reference")
    assert done.code == 0, done.stderr
    assert done.stdout.startswith("set, checkpoint (transformers): 75.0 % of 4 questions")
    evaluate(task, "--out", tmp_path / "bundle")
    compared = run_command("eval", "compare", tmp_path / "reference", tmp_path / "bundle")
    assert "+0.00 points" in compared.stdout and "4 questions, 0 lost, 0 won" in compared.stdout


def test_broken_rows_do_not_count_and_are_named(tmp_path: Path) -> None:
    rows = json.loads(as_json(tmp_path, PLAIN).read_text())
    (tmp_path / "torn.png").write_bytes(card_bytes(YES)[:60])
    rows += [rows[0] | {"image": "torn.png"}, rows[0] | {"image": "away.png"}]
    done = evaluate(write_json(tmp_path / "t.json", rows), "--out", tmp_path / "out")
    assert done.code == 0, done.stderr
    assert ": 75.0 % of 4 questions" in done.stdout and ", 2 broken." in done.stdout
    report = (tmp_path / "out" / "report.md").read_text()
    assert "torn.png" in report and "'away.png' is missing" in report


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("away.tsv",), "cannot read the task 'away.tsv'"),
        (("set.json", "-m", "away.edge"), "no model at 'away.edge'"),
        (("set.json", "--reference", "away"), "away"),
        (("set.json", "--reference", "x", "--engine", "onnx"), "leave --model and --engine out"),
        (("set.json", "--scorer", "bleu"), "no scorer is called 'bleu'"),
        (("set.json", "--scorer", "choice"), "needs options"),
        (("set.json", "set.json"), "one task at a time"),
        (("compare", "a"), "compare takes two results"),
        (("compare", "a", "b"), "cannot use the result 'a'"),
        (("compare", "a", "b", "--limit", 3), "compare does not use --limit"),
        (("compare", "a", "b", "--out", "c", "-m", "d"), "compare does not use --model, --out"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[object, ...], said: str, tmp_path: Path) -> None:
    write_card(tmp_path / "c.png", YES)
    write_json(tmp_path / "set.json", [{"image": "c.png", "question": ASKED, "answer": "It says yes."}])
    done = run_command("eval", *arguments, cwd=tmp_path)
    assert (done.code, done.stdout, len(done.errors)) == (1, "", 1), done.stderr
    assert said in done.stderr


def test_wrong_usage_ends_with_two(tmp_path: Path) -> None:
    for option in ("--limit", "--max-new-tokens", "--threads"):
        assert run_command("eval", "set.json", option, 0, cwd=tmp_path).code == 2
    assert run_command("eval").code == 2


def test_the_sets_are_three_quarters_right() -> None:
    assert sum(text == right for text, right in ROWS) == 3
