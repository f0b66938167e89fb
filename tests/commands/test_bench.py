"""``edge-mllm bench`` and its report as a user starts them, on the bundle that ships."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from commands.command_line import STARTER, in_terminal, run_command

SMALL = ("--image-size", "300x200", "--answer-tokens", "4", "--repeat", "2", "--warmup", "1", "--loads", "1")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    file = tmp_path_factory.mktemp("bench") / "a.json"
    chosen = ("--engine", "onnx", "--threads", "1", "--images", "2", "--prompt-tokens", "20", "--no-prompt-weights")
    more = ("--prompt-lookup", "4", "--image-reduction", "diverse:1/2")
    done = run_command("bench", "-m", STARTER, *chosen, *more, *SMALL, "-o", file, "--json")
    assert done.document == json.loads(file.read_text())
    return file


def test_the_case_is_the_one_that_was_typed(measured):
    result = json.loads(measured.read_text())
    (run,) = result["runs"]
    case = run["case"]
    assert (case["engine"], case["threads"], case["images"]) == ("onnx", 1, 2)
    assert (case["image_width"], case["image_height"]) == (300, 200)
    assert (case["prompt_tokens"], case["answer_tokens"], case["prompt_lookup"]) == (20, 4, 4)
    assert (case["prompt_weights"], case["reduction"]) == (False, "diverse:1/2")
    assert (result["warmup"], result["repeat"], len(run["samples"]), len(run["loads"]["cold"])) == (1, 2, 2, 1)
    assert run["counts"]["completion_tokens"] == 4


def test_two_bundles_in_turns_as_a_table():
    done = run_command("bench", "--compare", f"{STARTER}@onnx", f"{STARTER}@gguf", *SMALL, "--prompt-weights", "--md")
    assert done.code == 0, done.stderr
    assert "| end to end |" in done.stdout


def test_lines_of_csv_and_a_file_by_its_long_name(tmp_path):
    done = run_command("bench", "--model", STARTER, "--images", "0", *SMALL, "--csv", "--out", tmp_path / "b.json")
    assert done.code == 0, done.stderr
    runs = json.loads((tmp_path / "b.json").read_text())["runs"]
    assert len(done.stdout.splitlines()) == 1 + len(runs)
    assert all(run["case"]["images"] == 0 for run in runs)


def test_a_file_to_send_names_no_place(tmp_path):
    """What is written says what was measured, on what, and how busy it was; and nothing of whose it is."""
    file, home = tmp_path / "sent.json", tmp_path / "home of somebody"
    bundle = shutil.copytree(STARTER, home / "starter.edge")
    short = ("--image-size", "300x200", "--answer-tokens", "4", "--repeat", "3", "--loads", "1")
    done = run_command("bench", "-m", bundle, *short, "--submit", file, "-o", tmp_path / "kept.json", "--md")
    assert done.code == 0 and "nothing was sent" in done.stderr
    text, kept = file.read_text(), (tmp_path / "kept.json").read_text()
    assert not any(word in text for word in (str(tmp_path), "somebody"))
    assert "somebody" in kept
    sent, kept = json.loads(text), json.loads(kept)
    assert sent["runs"][0]["case"].pop("model") == "starter" and kept["runs"][0]["case"].pop("model")
    assert sent["runs"] == kept["runs"] and sent["machine"] == kept["machine"]
    assert run_command("bench", "report", file, "--csv").code == 0
    few = run_command("bench", "-m", bundle, "--repeat", "2", "--submit", tmp_path / "few.json")
    assert (few.code, "--repeat of 3 or more" in few.stderr, list(tmp_path.glob("few*"))) == (1, True, [])


def test_a_narrow_terminal_keeps_names_whole(measured):
    for columns in (40, 60):
        code, shown = in_terminal("bench", "report", measured, measured, columns=columns)
        assert code == 0
        assert all(re.search(rf"\b{name}\b", shown) for name in ("starter", "decode tokens/s", "end to end", "onnx"))
    _, wide = in_terminal("bench", "report", measured, columns=200)
    assert re.search(r"^model +starter *$", wide, re.M)


def test_reports(measured, tmp_path):
    plot = tmp_path / "p.svg"
    table = run_command("bench", "report", measured, measured, "--md", "--plot", plot)
    assert (table.code, "| end to end |" in table.stdout) == (0, True)
    assert "<svg" in plot.read_text()
    assert len(run_command("bench", "report", measured, measured, "--csv").stdout.splitlines()) == 3
    assert (
        run_command("bench", "report", measured, measured, "--json").document == [json.loads(measured.read_text())] * 2
    )
    assert run_command("bench", "report", measured, "--json-indent").document == json.loads(measured.read_text())
    two = run_command("bench", "report", measured, "--json", "--csv")
    assert (two.code, "take one" in two.stderr) == (1, True)


def test_other_programs_are_told_and_marked(tmp_path):
    """A busy loop beside it, on every core."""
    loop = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(loop) for _ in os.sched_getaffinity(0)]
    try:
        done = run_command("bench", "-m", STARTER, "--images", "0", *SMALL, "-o", tmp_path / "b.json", "--md")
    finally:
        for each in busy:
            each.kill()
            each.wait()
    assert done.code == 0
    assert re.search(r"^warning: other programs use \d+\.\d of \d+ cores, so times", done.stderr, re.M)
    assert "the results are marked" in done.errors[-1]
    (measured,) = json.loads((tmp_path / "b.json").read_text())["runs"]
    assert measured["other_cores"] > 0.2
    assert re.search(r"\| other programs \| +\d+\.\d cores \|", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-m", "away.edge"), "no model at 'away.edge'"),
        (("--mmproj", "away.gguf"), "mmproj"),
        (("--plot", "picture.doc", *SMALL), "picture.doc"),
        (("report", "away.json"), "away.json"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, words):
    done = run_command("bench", *arguments)
    assert done.code in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
