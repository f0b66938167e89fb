"""``edge-mllm models``, end to end: bundles on this machine, and the recipes of export."""

from __future__ import annotations

import shutil

import pytest
from commands.command_line import STARTER, run_command

pytestmark = pytest.mark.xdist_group("models-command")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder with a bundle, a damaged one, and what is none."""
    place = tmp_path_factory.mktemp("shelf")
    shutil.copytree(STARTER, place / "mine.edge")
    (place / "broken.edge").mkdir()
    (place / "broken.edge" / "bundle.json").write_text("{")
    (place / "pictures").mkdir()
    return place


def test_bundles_of_directories_beside_the_starter(shelf):
    done = run_command("models", shelf)
    assert done.code == 0
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["name", "engines", "MB", "licence", "source", "path"]
    places = [row.split()[-1] for row in rows]
    assert places == [str(STARTER), str(shelf / "mine.edge")]
    assert all("onnx, gguf" in row and "7.6" in row and "apache-2.0" in row for row in rows)
    (line,) = done.errors
    assert str(shelf / "broken.edge") in line and "not valid JSON" in line


def test_json(shelf):
    found = run_command("models", "--json", shelf, shelf / "mine.edge").document
    assert run_command("models", "--json-indent", shelf, shelf / "mine.edge").document == found
    assert [row["path"] for row in found] == [str(STARTER), str(shelf / "mine.edge")]
    for row in found:
        assert row["engines"] == ["onnx", "gguf"] and row["licence"] == "apache-2.0"
        files = [file for file in STARTER.iterdir() if file.name != "bundle.json"]
        assert row["bytes"] == sum(file.stat().st_size for file in files)


def test_without_a_directory_it_looks_here(shelf):
    found = run_command("models", "--json", cwd=shelf).document
    assert len(found) == 2


def test_recipes_are_those_that_export_takes():
    shown = run_command("models", "--recipes").stdout
    listed = run_command("models", "--recipes", "--json").document
    for entry in listed:
        assert any(line.split()[:2] == [entry["component"], entry["name"]] for line in shown.splitlines())
    defaults = {(entry["component"], entry["name"]) for entry in listed if entry["default"]}
    assert {("gguf", "q4_0"), ("onnx", "int4_b32"), ("vision", "int8")} <= defaults
    refused = run_command("export", STARTER.parent, "-o", "never.edge", "--quant", "q3_z")
    assert refused.code != 0 and "q3_z" in refused.stderr
    known = {entry["name"] for entry in listed if entry["component"] in ("gguf", "onnx")}
    assert all(name in refused.stderr for name in known)


def test_a_missing_directory_is_one_line(tmp_path):
    done = run_command("models", tmp_path / "none")
    assert (done.code, done.stdout) == (1, "")
    assert done.errors == [f"edge-mllm: no model at '{tmp_path / 'none'}': no such file or directory"]


def test_wrong_usage():
    assert run_command("models", "--recipe", "q4_0").code == 2
