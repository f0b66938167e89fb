"""The whole export: what appears, what it says about itself, and that nothing appears when something goes wrong."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from family_makers import changed_copy
from quick_exports import as_users_do

import edge_mllm
from edge_mllm.errors import PartChangedError, SettingError
from edge_mllm.measure.bundle_report import recipe_lines, verification_rows
from edge_mllm.session.files import open_bundle
from edge_mllm_export import ExportOptions, Limits, export_bundle
from edge_mllm_export.errors import (
    LossError,
    OutputError,
    TensorsError,
    UnsupportedArchitectureError,
    VerificationError,
)
from edge_mllm_export.reference.probes import draw_picture
from edge_mllm_export.write import parts
from edge_mllm_quant.recipes.recipe import UnknownRecipeError

QUICK = ExportOptions(format="gguf", quant="f16", vision="fp32", verify=False)
"""Needs no second process."""


@pytest.fixture(scope="module")
def bundle(tiny_smolvlm_tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every part, in the default recipes, verified."""
    out = tmp_path_factory.mktemp("export") / "tiny.edge"
    export_bundle(str(tiny_smolvlm_tied), out, ExportOptions(mmproj=True, allow_loss=True))
    return out


def test_bundle_is_whole_and_nothing_lies_beside_it(bundle: Path) -> None:
    opened = open_bundle(bundle)
    opened.tokenizer()
    named = {part.file for part in opened.spec.parts.values()}
    assert {path.name for path in bundle.iterdir()} == named | {"bundle.json"}
    assert set(opened.spec.parts) == {
        *("decoder_onnx", "decoder_onnx_data", "embeddings", "decoder_gguf"),
        *("vision", "mmproj", "tokenizer", "chat_template"),
    }
    assert list(bundle.parent.iterdir()) == [bundle]
    assert opened.spec.source.licence == "apache-2.0"
    assert {"torch", "transformers", "onnxruntime-genai"} <= set(opened.spec.exporter)


def test_nothing_tells_where_it_was_made_and_the_same_weights_give_the_same_bytes(
    bundle: Path, tiny_smolvlm_tied: Path, tmp_path: Path
) -> None:
    """torch's exporter notes stack traces with file paths, onnxruntime-genai's the commit of the current directory.

    The second export shares nothing with the first one, so what the tests share is what a user's export makes.
    """
    again = tmp_path / "again.edge"
    with as_users_do():
        export_bundle(str(tiny_smolvlm_tied), again, ExportOptions(allow_loss=True, verify=False))
    files = {path.name: path.read_bytes() for path in again.iterdir()}
    for place in (Path(edge_mllm.__file__).parents[1], tmp_path):
        assert [name for name, data in files.items() if str(place).encode() in data] == []
    assert [
        name for name, data in files.items() if name != "bundle.json" and data != (bundle / name).read_bytes()
    ] == []


def test_four_bit_parts_say_their_true_size(bundle: Path) -> None:
    recipe = open_bundle(bundle).spec.recipe
    assert recipe["decoder_onnx"]["name"] == "int4_b32"
    assert 4.5 < recipe["decoder_onnx"]["bits_per_weight"] < 4.6
    assert recipe["decoder_gguf"]["name"] == "q4_0"
    assert 4.5 < recipe["decoder_gguf"]["bits_per_weight"] < 5.5


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_bundle_answers(bundle: Path, engine: str) -> None:
    with edge_mllm.load(bundle, engine=engine, threads=1) as model:
        answer = model.generate("What does it say?", images=[draw_picture(90, 30, seed=0)], max_new_tokens=4)
    assert answer.usage.completion_tokens >= 1
    assert answer.usage.image_tokens > 0


def test_verification_is_in_the_bundle(bundle: Path) -> None:
    found = open_bundle(bundle).spec.verification
    assert found["pixels"]["max_abs_difference"] == 0.0
    assert found["token_ids"]["equal"] == found["token_ids"]["prompts"] > 5
    assert 0.99 < found["vision"]["cosine_mean"] < 1.0
    assert len(found["vision"]["per_tile"]) == found["vision"]["tiles"] > 10
    assert set(found["engines"]) == {"onnx", "gguf"}
    for numbers in found["engines"].values():
        for name in ("decoder", "whole"):
            assert 0 < numbers[name]["kl_mean"] <= numbers[name]["kl_max"]
            assert 0.2 < numbers[name]["top1"] <= 1.0
            assert len(numbers[name]["greedy"]["first_differences"]) == len(found["prompts"])


def test_a_second_tower_is_for_openvino_alone(tiny_smolvlm: Path, tmp_path: Path) -> None:
    out = tmp_path / "two.edge"
    export_bundle(str(tiny_smolvlm), out, replace(QUICK, vision="int8, int8_static", verify=True, allow_loss=True))
    bundle = open_bundle(out)
    parts, found = bundle.spec.parts, bundle.spec.verification
    assert [parts[name].precision for name in ("vision", "vision_openvino")] == ["int8", "int8_static"]
    assert found["vision_openvino"]["recipe"] == bundle.spec.recipe["vision_openvino"]["name"] == "int8_static"
    assert 0.98 < found["vision_openvino"]["cosine_mean"] < 1.0
    assert found["vision_openvino"]["cosine_mean"] != found["vision"]["cosine_mean"]
    assert "vision_openvino.onnx: int8_static, " in "\n".join(recipe_lines(bundle.spec))
    assert [part for part, *_ in verification_rows(bundle.spec)][2:4] == ["vision", "vision openvino"]
    file = out / "vision_openvino.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with edge_mllm.load(out, threads=1) as model:  # what does without it does not read it
        assert model.generate("What?", [draw_picture(90, 30, seed=0)], max_new_tokens=2).usage.image_tokens > 0
    with pytest.raises(PartChangedError, match=r"vision_openvino\.onnx"):
        bundle.check_part("vision_openvino")


@pytest.mark.parametrize("names", ["int8,int8_static,fp16", "int8,int4", "fp16,int8"])
def test_a_second_tower_that_openvino_is_slow_with_is_refused(names: str, tiny_smolvlm: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="after a comma stands one tower for OpenVINO"):
        export_bundle(str(tiny_smolvlm), tmp_path / "x.edge", replace(QUICK, vision=names))


def test_loss_beyond_the_limit_leaves_no_bundle(tiny_smolvlm: Path, tmp_path: Path) -> None:
    strict = replace(QUICK, quant="q4_0", verify=True, limits=Limits(max_kl=1e-9, min_top1=0.0))
    with pytest.raises(LossError, match=r"the gguf decoder failed: the mean KL divergence is .*1e-09"):
        export_bundle(str(tiny_smolvlm), tmp_path / "x.edge", strict)
    assert list(tmp_path.iterdir()) == []


def test_wrong_weights_are_found_even_when_loss_is_allowed(
    tiny_smolvlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unquantised part that differs is a fault, not a loss."""
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

    read = Checkpoint.tensor

    def swapped(self: Checkpoint, name: str) -> object:
        tensor = read(self, name)
        return tensor.flip(0) if name == "model.text_model.layers.1.mlp.up_proj.weight" else tensor

    monkeypatch.setattr(Checkpoint, "tensor", swapped)
    options = replace(QUICK, quant="f32", verify=True, allow_loss=True)
    with pytest.raises(LossError, match="the unquantised gguf decoder"):
        export_bundle(str(tiny_smolvlm), tmp_path / "x.edge", options)
    assert list(tmp_path.iterdir()) == []


def test_existing_output_needs_force(tiny_smolvlm: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.edge"
    export_bundle(str(tiny_smolvlm), out, QUICK)
    before = (out / "bundle.json").read_text()
    with pytest.raises(OutputError, match="`force`"):
        export_bundle(str(tiny_smolvlm), out, QUICK)
    assert (out / "bundle.json").read_text() == before
    export_bundle(str(tiny_smolvlm), out, replace(QUICK, quant="q8_0", force=True))
    assert open_bundle(out).spec.parts["decoder_gguf"].precision == "q8_0"
    assert list(tmp_path.iterdir()) == [out]


def test_force_replaces_bundles_only(tiny_smolvlm: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    with pytest.raises(OutputError, match="is no bundle"):
        export_bundle(str(tiny_smolvlm), tmp_path / "photos", replace(QUICK, force=True))
    assert (tmp_path / "photos" / "a.jpg").read_bytes() == b"x"


def test_failure_keeps_the_old_bundle(tiny_smolvlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "x.edge"
    export_bundle(str(tiny_smolvlm), out, QUICK)
    before = (out / "bundle.json").read_text()

    def full(_job: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(parts, "_write_vision", full)
    with pytest.raises(OutputError, match="the disk is full; nothing was left behind"):
        export_bundle(str(tiny_smolvlm), out, replace(QUICK, force=True))
    assert (out / "bundle.json").read_text() == before
    assert list(tmp_path.iterdir()) == [out]


def test_too_little_disk_is_found_before_anything_is_written(
    tiny_smolvlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_mllm_export.write.place.shutil.disk_usage", lambda _: type("U", (), {"free": 1 << 20})())
    with pytest.raises(OutputError, match=r"not enough disk space .* GB needed"):
        export_bundle(str(tiny_smolvlm), tmp_path / "x.edge", QUICK)
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_to_verify_is_found_before_anything_is_written(
    tiny_smolvlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_mllm_export.write.resources.available_bytes", lambda: 1000)
    with pytest.raises(VerificationError, match=r"GB are free; use `verify=False`"):
        export_bundle(str(tiny_smolvlm), tmp_path / "x.edge", replace(QUICK, verify=True))
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_list_the_known_ones(tiny_smolvlm: Path, tmp_path: Path) -> None:
    def refused(**fields: str) -> str:
        with pytest.raises(SettingError) as caught:
            export_bundle(str(tiny_smolvlm), tmp_path / "x.edge", replace(QUICK, **fields))
        return str(caught.value)

    assert "q4_0, iq4_nl, q4_k_m" in refused(quant="q5_x")
    assert "int4_b32" in refused(quant="q4_0", format="onnx")
    assert "fp32, fp16, int8" in refused(quant="f16", vision="int3")
    assert "onnx, gguf, both" in refused(format="tflite")
    assert issubclass(UnknownRecipeError, SettingError)
    assert list(tmp_path.iterdir()) == []


def test_unsupported_architecture_lists_the_supported_ones(tiny_smolvlm: Path, tmp_path: Path) -> None:
    source = changed_copy(tiny_smolvlm, tmp_path / "source", "config.json", {})
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "architectures": ["Idefics2ForConditionalGeneration"]}))
    with pytest.raises(UnsupportedArchitectureError) as caught:
        export_bundle(str(source), tmp_path / "x.edge", QUICK)
    message = str(caught.value)
    assert "Idefics3ForConditionalGeneration" in message
    assert "SmolVLMForConditionalGeneration" in message
    assert list(tmp_path.iterdir()) == [source]


def test_mmproj_is_refused_by_name_for_a_family_that_libmtmd_cannot_do(tmp_path: Path) -> None:
    """Before anything is written."""
    from tiny_llava import make_tiny_llava

    source = make_tiny_llava(tmp_path / "source")
    with pytest.raises(SettingError, match="libmtmd has no projector for llava; leave `mmproj` out"):
        export_bundle(str(source), tmp_path / "x.edge", replace(QUICK, mmproj=True))
    assert list(tmp_path.iterdir()) == [source]


def test_missing_and_left_over_tensors_are_all_named(tiny_smolvlm: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = changed_copy(tiny_smolvlm, tmp_path / "source", "config.json", {})
    (source / "model.safetensors").unlink()
    tensors = load_file(tiny_smolvlm / "model.safetensors")
    gone = [name for name in tensors if "layers.1.mlp" in name]
    kept = {name: tensor for name, tensor in tensors.items() if name not in gone}
    kept["model.text_model.extra.weight"] = tensors["lm_head.weight"].clone()
    kept["lm_head.weight"] = tensors["lm_head.weight"][:-1].clone()
    save_file(kept, source / "model.safetensors")
    with pytest.raises(TensorsError) as caught:
        export_bundle(str(source), tmp_path / "x.edge", QUICK)
    assert caught.value.missing == tuple(sorted(gone))
    assert caught.value.left_over == ("model.text_model.extra.weight",)
    assert len(caught.value.wrong) == 1
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("stop_at", ["writing language model", "writing vision.onnx"])
def test_ctrl_c_leaves_nothing(tiny_smolvlm: Path, tmp_path: Path, stop_at: str) -> None:
    def announce(step: str) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_bundle(str(tiny_smolvlm), tmp_path / "x.edge", QUICK, announce)
    assert list(tmp_path.iterdir()) == []


def test_signal_to_the_command_leaves_a_message_only(tiny_smolvlm: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge_mllm", "export", str(tiny_smolvlm), "-o", str(tmp_path / "x.edge")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("writing decoder.onnx"):
            break
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "edge-mllm: interrupted"
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_full_disk_ends_with_one_line(tiny_smolvlm: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk."""
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))\n"
        "from edge_mllm.cli.main import main\n"
        "main()\n"
    )
    arguments = ["export", str(tiny_smolvlm), "-o", str(tmp_path / "x.edge"), "--format", "gguf"]
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("edge-mllm: cannot write ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
