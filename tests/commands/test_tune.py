"""``edge-mllm tune``, end to end: settings are searched, kept, and used by ``run``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands.command_line import DEMO, STARTER, run_command

pytestmark = pytest.mark.xdist_group("tune-command")
QUESTION = ("run", "-i", DEMO / "label.png", "--json", "Read the word.")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> dict[str, str]:
    return {"EDGE_MLLM_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def report(cache):
    done = run_command("tune", "--seconds", 60, "--json", env=cache)
    assert done.code == 0, done.stderr
    document = json.loads(done.stdout)
    told = [line for line in done.errors if not line.startswith("warning: other programs")]
    assert [line for line in told if "threads" in line] == told
    assert len(told) == len(document["trials"]) + len(document["refused"])
    assert document["kept"]["other_cores"] >= 0
    return document


def test_both_decoders_were_tried_and_the_fastest_kept(report, cache):
    kept, trials = report["kept"], report["trials"]
    assert {trial["settings"]["variant"]["engine"] for trial in trials} == {"onnx", "gguf"}
    assert {trial["settings"]["tile_batch"] for trial in trials} >= {1, 2, 4}
    assert len({trial["settings"]["chunk"] for trial in trials}) > 1
    assert report["complete"] is True
    fastest = min(trial["seconds"] for trial in trials)
    assert kept["seconds"] in (fastest, kept["default_seconds"]) and kept["seconds"] <= kept["default_seconds"]
    file = Path(report["file"])
    assert file.is_relative_to(cache["EDGE_MLLM_CACHE"])
    assert json.loads(file.read_text()) == kept
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_run_uses_them_and_says_so(report, cache):
    found, kept = run_command(*QUESTION, env=cache).document, report["kept"]
    assert found["text"].strip() == "Coffee"
    assert found["engine"] == found["tuned"]["engine"] == kept["engine"]
    for name in ("threads", "chunk", "tile_batch"):
        assert found["tuned"][name] == kept[name]
    assert "settings of edge-mllm tune" in run_command("--verbose", *QUESTION, env=cache).stderr
    assert "tuned" not in run_command(*QUESTION, "--threads", 1, env=cache).document
    other = "gguf" if kept["engine"] == "onnx" else "onnx"
    typed = run_command(*QUESTION, "--engine", other, env=cache).document
    assert (typed["engine"], "tuned" in typed) == (other, False)


def test_another_bundle_has_settings_of_its_own(tmp_path, report, cache):
    mine = tmp_path / "mine.edge"
    shutil.copytree(STARTER, mine)
    manifest = json.loads((mine / "bundle.json").read_text())
    (mine / "bundle.json").write_text(json.dumps(manifest | {"name": "mine"}))
    assert "tuned" not in run_command(*QUESTION, "--model", mine, env=cache).document
    done = run_command("tune", "-m", mine, "--seconds", 1, "--quiet", env=cache)
    assert done.code == 0, done.stderr
    assert all(line.startswith("warning: other programs used") for line in done.errors)
    assert done.stdout.splitlines()[0].split()[:3] == ["decoder", "tower", "threads"]
    again = run_command("tune", "-m", mine, "--seconds", 1, "-q", "--json-indent", env=cache).document
    assert again["kept"]["bundle"] == json.loads(Path(again["file"]).read_text())["bundle"]
    place = done.stdout.splitlines()[-1].removeprefix("kept in ")
    assert place != report["file"] and json.loads(Path(place).read_text())["seconds"] > 0
    assert "tuned" in run_command(*QUESTION, "--model", mine, env=cache).document


def test_a_place_that_cannot_be_written_is_found_before_the_search(tmp_path):
    (tmp_path / "file").write_text("")
    done = run_command("tune", env={"EDGE_MLLM_CACHE": str(tmp_path / "file")})
    assert (done.code, done.stdout) == (1, "")
    (line,) = done.errors
    assert "Not a directory" in line


@pytest.mark.parametrize("model", [Path("/no/such.edge"), STARTER / "decoder.gguf", DEMO])
def test_what_is_no_bundle_is_one_line(model):
    done = run_command("tune", "--model", model)
    assert (done.code, done.stdout, len(done.errors)) == (1, "", 1)
    assert f"no model at '{model}'" in done.stderr


def test_wrong_usage():
    assert run_command("tune", "--seconds", 0.5).code == 2
