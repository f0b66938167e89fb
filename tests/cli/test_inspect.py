import json
import shutil

import pytest
from typer.testing import CliRunner

from edge_mllm.cli.main import app
from edge_mllm.session.files import starter_bundle


def call(*args: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    return result.exit_code, result.stdout, result.stderr


def test_inspect_shows_the_bundle(tiny_bundle):
    code, out, err = call("inspect", tiny_bundle)
    assert (code, err) == (0, "")
    for text in ("apache-2.0", "decoder_gguf", "vision.onnx", "fp32", "onnx, gguf", "longest_edge_grid", "52 (13"):
        assert text in " ".join(out.split())
    spec = json.loads((tiny_bundle / "bundle.json").read_text())
    for name, part in spec["parts"].items():
        assert name in out
        assert f"{part['bytes'] / 1e6:.2f}" in out


def test_inspect_as_json(tiny_bundle):
    code, out, _ = call("inspect", tiny_bundle, "--json")
    document = json.loads(out)
    assert code == 0
    spec = json.loads((tiny_bundle / "bundle.json").read_text())
    assert {key: document[key] for key in spec} == spec
    assert document["tokens_per_picture"]["1024x768"] == {"tiles": 13, "tokens": 52}


def test_inspect_shows_what_the_export_verified():
    bundle = starter_bundle()
    found = json.loads((bundle / "bundle.json").read_text())["verification"]
    code, out, _ = call("inspect", bundle)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert f"pixels largest difference 0 in {found['pixels']['pictures']} pictures" in lines
    assert f"token ids {found['token_ids']['equal']} of {found['token_ids']['prompts']} prompts equal" in lines
    assert any(line.startswith("gguf whole int8 + q4_0 top-1 ") for line in lines)
    assert "verdict within the limits" in lines


def test_inspect_says_what_the_verification_decided(tmp_path):
    shutil.copytree(starter_bundle(), tmp_path / "x.edge")
    file = tmp_path / "x.edge" / "bundle.json"
    spec = json.loads(file.read_text())
    tokenizer = {"taken": "tokenizer.json", "class": "GPT2Tokenizer", "texts": 40, "differing": 3, "declared": ["<a>"]}
    template = {"file": "chat_template.json", "passed_over": ["chat_template.jinja"], "content": "text"}
    spec["verification"]["processor"] = {
        "tokenizer": tokenizer,
        "template": template,
        "counts_of_the_model": ["patch_size"],
        "written_from": "somebody/somewhere",
    }
    file.write_text(json.dumps(spec))
    out = " ".join(call("inspect", tmp_path / "x.edge")[1].split())
    for line in (
        "tokenizer tokenizer.json; GPT2Tokenizer of this transformers differs in 3 of 40 texts",
        "tokenizer tokens that tokenizer.json lacks: <a>",
        "template chat_template.json, as transformers; not chat_template.jinja",
        "template chat_template.json wants texts; it was made to take pictures",
        "processor sizes from config.json: patch_size",
        "processor none in transformers for this directory: written from somebody/somewhere",
    ):
        assert line in out


def test_inspect_names_the_exceptions_from_a_recipe(tmp_path):
    shutil.copytree(starter_bundle(), tmp_path / "x.edge")
    file = tmp_path / "x.edge" / "bundle.json"
    spec = json.loads(file.read_text())
    spec["recipe"]["decoder_gguf"] |= {"name": "mixed", "overrides": ["head=q6_k", "blk.*.ffn_down=q4_0"]}
    file.write_text(json.dumps(spec))
    out = " ".join(call("inspect", tmp_path / "x.edge")[1].split())
    bits = [f"{spec['recipe'][part]['bits_per_weight']:.2f}" for part in ("decoder_gguf", "decoder_onnx")]
    assert f"decoder.gguf: mixed with head=q6_k blk.*.ffn_down=q4_0, {bits[0]} bits per weight" in out
    assert f"decoder.onnx: {spec['parts']['decoder_onnx']['precision']}, {bits[1]} bits per weight" in out


def test_inspect_says_when_the_report_is_of_another_exporter(tiny_bundle, tmp_path):
    copy = tmp_path / "copy.edge"
    shutil.copytree(tiny_bundle, copy)
    spec = json.loads((copy / "bundle.json").read_text())
    spec["verification"] = {"vision": {"cosine": 0.99999876}}
    (copy / "bundle.json").write_text(json.dumps(spec))
    code, out, _ = call("inspect", copy)
    assert code == 0
    assert "of another exporter; --json shows them" in out


def test_inspect_check_finds_a_changed_byte(tiny_bundle, tmp_path):
    copy = tmp_path / "copy.edge"
    shutil.copytree(tiny_bundle, copy)
    tower = copy / "vision.onnx"
    tower.write_bytes(tower.read_bytes()[:-1] + b"\x00")
    assert call("inspect", copy)[0] == 0
    code, out, err = call("inspect", copy, "--check")
    assert (code, out) == (1, "")
    assert "vision.onnx" in err


def test_models_lists_bundles(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "one.edge")
    (tmp_path / "broken.edge").mkdir()
    (tmp_path / "broken.edge" / "bundle.json").write_text("{")
    code, out, err = call("models", tmp_path)
    assert code == 0
    assert "one.edge" in "".join(out.split())
    assert "broken.edge" in err
    code, out, _ = call("models", tmp_path, "--json")
    rows = [row for row in json.loads(out) if row["path"].startswith(str(tmp_path))]
    assert [row["engines"] for row in rows] == [["onnx", "gguf"]]


@pytest.mark.parametrize("command", ["inspect", "models"])
def test_missing_place(command):
    code, out, err = call(command, "/nowhere")
    assert (code, out) == (1, "")
    assert err.splitlines() == ["edge-mllm: no model at '/nowhere': no such file or directory"]
