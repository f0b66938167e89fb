"""The tune command, and run with what it kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny_published import make_published
from typer.testing import CliRunner

from edge_mllm.cli.main import app
from edge_mllm.costs.kept import Tuned, bundle_hash, keep, package_versions
from edge_mllm.machine.cpu import read_processor
from edge_mllm.machine.fingerprint import machine_id
from edge_mllm.session.chat_file import saved_binding

RUNNER = CliRunner()


def test_run_uses_what_tune_kept_and_says_so(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path))
    ask = ["run", "-m", str(tiny_bundle), "--json", "--max-new-tokens", "2", "What?"]
    before = RUNNER.invoke(app, ask)
    assert before.exit_code == 0 and "tuned" not in json.loads(before.stdout)
    done = RUNNER.invoke(app, ["tune", "-m", str(tiny_bundle), "--json", "--seconds", "60"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    kept = report["kept"]
    assert Path(report["file"]).is_relative_to(tmp_path)
    assert kept["seconds"] <= kept["default_seconds"]
    assert {trial["settings"]["variant"]["engine"] for trial in report["trials"]} == {"onnx", "gguf"}
    kept_file = Path(report["file"])
    assert {trial["settings"]["variant"]["kv_type"] for trial in report["trials"]} == {None, "f32"}
    kept_file.write_text(json.dumps(kept | {"engine": "gguf", "kv_type": "f32"}))
    after = json.loads(RUNNER.invoke(app, ask).stdout)
    assert after["engine"] == "gguf"
    expected = {"engine": "gguf", "kv_type": "f32"} | {name: kept[name] for name in ("threads", "chunk", "tile_batch")}
    assert after["tuned"] == expected
    typed = json.loads(RUNNER.invoke(app, [*ask, "--kv-type", "f16"]).stdout)["tuned"]
    assert typed == {name: value for name, value in expected.items() if name != "kv_type"}
    kept_file.write_text(kept_file.read_text().replace('"vision_engine": "ort"', '"vision_engine": "openvino"'))
    chosen = json.loads(RUNNER.invoke(app, [*ask, "--vision-engine", "ort"]).stdout)["tuned"]
    assert chosen == after["tuned"]  # what is typed goes before what was kept
    other = json.loads(RUNNER.invoke(app, [*ask, "--engine", "onnx"]).stdout)
    assert other["engine"] == "onnx" and "tuned" not in other


def test_chat_uses_what_tune_kept_and_a_saved_chat_what_it_was_saved_with(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "talk.chat"
    talk = ["chat", "-m", str(tiny_bundle), "--max-new-tokens", "2", "--chat-file"]

    def engine_of(path: Path) -> str:
        done = RUNNER.invoke(app, [*talk, str(path)], input="Hello\n")
        assert done.exit_code == 0, done.output
        return saved_binding(path)["engine"]

    own = engine_of(file)
    other = "onnx" if own == "gguf" else "gguf"
    versions = {"created": "", "versions": package_versions(), "seconds": 1.0, "default_seconds": 2.0}
    settings = {"engine": other, "threads": 1, "chunk": 64, "tile_batch": 1, "precision": None}
    keep(Tuned(machine=machine_id(read_processor()), bundle=bundle_hash(tiny_bundle), **settings, **versions))
    assert engine_of(file) == own
    assert engine_of(tmp_path / "new.chat") == other
    assert engine_of(tmp_path / "new.chat") == other
    assert saved_binding(tmp_path / "new.chat")["chunk"] == "64"


def test_a_published_directory_is_searched_for_its_precisions(
    tiny_smolvlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path / "cache"))
    directory = make_published(tiny_smolvlm, tmp_path / "published")
    decoder = directory / "onnx" / "decoder_model_merged.onnx"
    shutil.copy(decoder, decoder.with_name("decoder_model_merged_q4.onnx"))
    decoder.with_name("decoder_model_merged_bnb4.onnx").write_bytes(b"no graph")
    done = RUNNER.invoke(app, ["tune", "-m", str(directory), "--json", "--seconds", "20"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["default"]["settings"]["variant"] == {"engine": "onnx", "precision": "q4", "kv_type": None}
    assert {trial["settings"]["variant"]["precision"] for trial in report["trials"]} == {"q4", "fp32"}
    assert [line.split(":")[0] for line in report["refused"]] == ["onnx bnb4"]
    kept = Path(report["file"])
    kept.write_text(kept.read_text().replace('"precision": "q4"', '"precision": "fp32"'))
    ask = ["run", "-m", str(directory), "--json", "--max-new-tokens", "2", "What?"]
    assert json.loads(RUNNER.invoke(app, ask).stdout)["tuned"]["precision"] == "decoder_model_merged=fp32"
    assert "tuned" not in json.loads(RUNNER.invoke(app, [*ask, "--precision", "decoder_model_merged=q4"]).stdout)
