"""``edge-mllm cache``: what is kept where, and cleared without touching what is somebody's."""

from __future__ import annotations

import json
from pathlib import Path

from commands.command_line import run_command

import edge_mllm


def rows(text: str) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in json.loads(text)}


def machine(tmp_path):
    """Folders of a user, with a measured setting and a file of his own beside it."""
    (tmp_path / "cache" / "tuned").mkdir(parents=True)
    (tmp_path / "cache" / "tuned" / "one.json").write_text("{}" * 500)
    (tmp_path / "cache" / "checked").mkdir()
    (tmp_path / "cache" / "letter.txt").write_text("mine")
    (tmp_path / "cache" / "photos").mkdir()
    return {"EDGE_MLLM_CACHE": str(tmp_path / "cache"), "HF_HUB_CACHE": str(tmp_path / "hub")}


def test_settings_are_listed_and_cleared_and_nothing_else(tmp_path):
    env = machine(tmp_path)
    before = rows(run_command("cache", "--json", env=env).stdout)
    assert (before["settings"]["files"], before["settings"]["bytes"]) == (1, 1000)
    assert before["settings"]["path"] == str(tmp_path / "cache") and before["models"]["path"] == str(tmp_path / "hub")
    done = run_command("cache", "--clear", "settings", env=env)
    assert (done.code, done.stderr) == (0, "0.0 MB freed\n") and "settings" in done.stdout
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"letter.txt", "photos"}
    after = rows(run_command("cache", "--json-indent", env=env).stdout)
    assert after["settings"]["files"] == 0


def test_models_are_fetched_counted_and_cleared(shop):
    assert shop.type("pull", "org/bundle").code == 0
    found = rows(shop.type("cache", "--json").stdout)["models"]
    assert found["files"] == 8 and found["bytes"] > 7_000_000
    left = rows(shop.type("cache", "--clear", "all", "--json").stdout)
    assert left["models"]["files"] == left["settings"]["files"] == 0
    assert json.loads(shop.type("models", "--json").stdout)[-1]["name"] == "starter"


def test_an_empty_machine_is_in_order(tmp_path):
    env = {"EDGE_MLLM_CACHE": str(tmp_path / "none"), "HF_HUB_CACHE": str(tmp_path / "neither")}
    done = run_command("cache", "--clear", "all", env=env)
    assert done.code == 0 and not list(tmp_path.iterdir())


def test_graphs_are_kept_listed_used_and_cleared(tmp_path):
    env = machine(tmp_path)
    starter = str(Path(edge_mllm.__file__).parent / "starter.edge")
    done = run_command("cache", "--keep-graphs", starter, "--json", env=env)
    assert done.code == 0 and "arranging decoder.onnx\n" in done.stderr and "vision.onnx: " in done.stderr
    kept = rows(done.stdout)["graphs"]
    assert kept["files"] == 6 and kept["path"] == str(tmp_path / "cache" / "graphs")
    label = str(Path(edge_mllm.__file__).parents[1] / "starter" / "demo" / "label.png")
    said = run_command("run", "-m", starter, "--engine", "onnx", "-q", "-i", label, "What does it say?", env=env)
    assert said.code == 0 and said.stdout == "Coffee $4.60\n"
    done = run_command("cache", "--clear", "graphs", "--json", env=env)
    assert rows(done.stdout)["graphs"]["files"] == 0 and rows(done.stdout)["settings"]["files"] > 0
    assert run_command("cache", "--keep-graphs", str(tmp_path / "none.edge"), env=env).code == 1
