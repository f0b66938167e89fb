"""``edge-mllm inspect``, end to end: what a model is made of, as tables or as JSON."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from commands.command_line import DEMO, ROOT, STARTER, run_command

import edge_mllm

pytestmark = pytest.mark.xdist_group("inspect-command")
SIZE = 1024, 768


@pytest.fixture(scope="module")
def document() -> dict[str, object]:
    return run_command("inspect", "--json").document


def test_random_weights_have_no_verdict(tmp_path):
    """It said "beyond the limits", which frightens for nothing."""
    copy = tmp_path / "random.edge"
    shutil.copytree(STARTER, copy)
    document = json.loads((copy / "bundle.json").read_text("utf-8"))
    document["source"]["random_weights"] = True
    document["verification"]["passed"] = False
    (copy / "bundle.json").write_text(json.dumps(document), "utf-8")
    done = run_command("inspect", copy)
    assert done.code == 0 and "beyond" not in done.stdout
    assert re.search(
        r"^verdict +exact parts are equal; what random weights lose in few bits means nothing", done.stdout, re.M
    )


def test_tables_name_every_part_and_what_was_verified():
    done = run_command("inspect", STARTER)
    assert (done.code, done.stderr) == (0, "")
    manifest = json.loads((STARTER / "bundle.json").read_text())
    for part in manifest["parts"].values():
        row = next(line for line in done.stdout.splitlines() if f" {part['file']} " in line)
        assert part["precision"] in row and f"{part['bytes'] / 1e6:.2f}" in row
    for fact in ("starter", str(STARTER), "apache-2.0", "onnx, gguf", "1024x768: 180 (5 tiles)"):
        assert fact in done.stdout
    assert "against transformers" in done.stdout and "within the limits" in done.stdout


def test_without_a_model_it_is_the_starter(document):
    assert run_command("inspect", STARTER, "--json-indent").document == document


def test_json_is_the_manifest_with_tokens_per_picture(document):
    manifest = json.loads((STARTER / "bundle.json").read_text())
    assert document["parts"] == manifest["parts"]
    assert document["verification"] == manifest["verification"]
    with edge_mllm.load() as model:
        expected = model.preprocess(DEMO / "label.png")
    assert document["tokens_per_picture"]["640x480"]["tokens"] == expected.tokens == 180


def test_files_lie_as_they_are_said_to(document):
    for part in document["parts"].values():
        data = (STARTER / part["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (part["bytes"], part["sha256"])


def test_check_finds_a_changed_byte(tmp_path):
    changed = tmp_path / "changed.edge"
    shutil.copytree(STARTER, changed)
    assert run_command("inspect", changed, "--check").code == 0
    file = changed / "vision.onnx"
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    assert run_command("inspect", changed, "--no-check").code == 0
    done = run_command("inspect", changed, "--check", "--json")
    assert (done.code, done.stdout, len(done.errors)) == (1, "", 1)
    assert "vision.onnx" in done.stderr


def test_prompt_weights_are_a_part(exported_starter):
    parts = run_command("inspect", exported_starter, "--json").document["parts"]
    assert parts["prompt_onnx"]["precision"] == "int8" and parts["vision"]["precision"] == "fp32"
    assert "verification: none was recorded" in run_command("inspect", exported_starter).stdout


def test_precision_of_a_published_directory(published_starter):
    def decoder(*args: object) -> str:
        shown = run_command("inspect", published_starter, "--json", *args).document
        return shown["parts"]["decoder_onnx"]["file"]

    assert decoder() == "onnx/decoder_model_merged_q4.onnx"
    assert decoder("--precision", "decoder_model_merged=fp32") == "onnx/decoder_model_merged.onnx"
    done = run_command("inspect", published_starter, "--precision", "q8")
    assert (done.code, done.stdout) == (1, "") and "has no embed_tokens in q8" in done.stderr


def test_a_gguf_file_and_its_mmproj(exported_starter):
    decoder, tower = STARTER / "decoder.gguf", exported_starter / "mmproj.gguf"
    alone = run_command("inspect", decoder)
    assert alone.code == 0 and "none without --mmproj FILE" in alone.stdout
    both = run_command("inspect", decoder, "--mmproj", tower, "--json").document
    assert (both["model"], both["mmproj"]) == (str(decoder), str(tower))
    assert both["decoder"]["n_layer"] == 4
    swapped = run_command("inspect", decoder, "--mmproj", decoder)
    assert swapped.code == 1 and "it is no vision tower" in swapped.stderr


@pytest.mark.parametrize(
    "given, reason",
    [
        ((STARTER / "decoder.gguf", "--check"), "is no bundle"),
        ((STARTER / "decoder.gguf", "--precision", "q4"), "a GGUF file has one precision"),
        ((STARTER, "--precision", "q4"), "there is no precision to choose"),
        ((STARTER, "--mmproj", "mmproj.gguf"), "--mmproj goes with a GGUF file"),
        ((ROOT / "starter" / "checkpoint",), "it is a checkpoint; type: edge-mllm export"),
        ((ROOT / "starter",), "there is no bundle.json in it"),
        ((Path("/no/such/place"),), "no such file or directory"),
    ],
)
def test_what_cannot_be_shown_is_one_line(given, reason):
    done = run_command("inspect", *given)
    assert (done.code, done.stdout) == (1, "")
    (line,) = done.errors
    assert reason in line


def test_wrong_usage():
    assert run_command("inspect", STARTER, STARTER).code == 2
