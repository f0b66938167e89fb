"""``edge-mllm export``, end to end: a checkpoint becomes a bundle that was compared with it, and that answers."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands.command_line import DEMO, ROOT, STARTER, Ended, command_environment, run_command
from commands.conftest import CHECKPOINT
from family_makers import make_tiny
from PIL import Image
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.xdist_group("export-command")
LABEL = DEMO / "label.png"
QUESTION = "Read the word."
QUICK = ("--format", "gguf", "--no-verify", "--no-calibration")
"""What a bundle takes that is made in seconds."""


def export(source: object, out: Path, *args: object, seconds: float = 300) -> Ended:
    return run_command("export", source, "-o", out, *args, seconds=seconds)


def made(source: object, out: Path, *args: object, seconds: float = 300) -> Ended:
    """An export that succeeds; all it says is on standard error."""
    done = export(source, out, *args, seconds=seconds)
    assert (done.code, done.stdout) == (0, ""), done.stderr
    assert done.errors[-1].startswith(f"{out}: ")
    return done


def refused(*args: object, source: object = CHECKPOINT, out: Path | None = None) -> str:
    """The last line of an export that fails; nothing is left of it."""
    place = out or Path("refused.edge")
    done = export(source, place, *args)
    assert (done.code, done.stdout) == (1, ""), done.stderr
    assert done.errors[-1].startswith("edge-mllm: ") and "Traceback" not in done.stderr
    assert out is not None or not place.exists()
    return done.errors[-1]


def shown(bundle: Path) -> dict[str, Any]:
    """bundle.json as inspect prints it, hashes compared."""
    return run_command("inspect", bundle, "--check", "--json").document


def answered(bundle: Path, *args: object) -> dict[str, Any]:
    return run_command("run", "-m", bundle, "-i", LABEL, QUESTION, "--threads", 1, "--json", *args).document


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of a user's own, with a question."""
    folder = tmp_path_factory.mktemp("my-pictures")
    with Image.open(LABEL) as label:
        label.resize((96, 96)).save(folder / "label.png")
    (folder / "questions.txt").write_text("label.png\tRead the word.\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    out = tmp_path_factory.mktemp("verified") / "good.edge"
    recipe = ("--quant", "q8_0", "--override", "blk.0.ffn_down=q4_0", "--vision", "fp16", "--no-calibration")
    limits = ("--min-top1", 0.5, "--max-kl", 2, "--min-cosine", 0.9)
    words = ("--out", out, "--format", "gguf", *recipe, "--verify", *limits)
    done = run_command("export", CHECKPOINT, *words, seconds=900)
    assert (done.code, done.stdout) == (0, ""), done.stderr
    return out, done


def test_steps_are_told_in_order(verified):
    out, done = verified
    steps = ["opening ", "writing language model", "writing decoder.gguf", "writing vision.onnx", "verifying against"]
    places = [done.stderr.index(step) for step in steps]
    assert places == sorted(places)
    assert re.search(
        r"^decoder.gguf: q8_0 with blk.0.ffn_down=q4_0, 8.\d+ bits per weight, \d.\d MB$", done.stderr, re.M
    )
    assert re.search(r"^vision.onnx: fp16, \d.\d MB$", done.stderr, re.M)
    assert re.fullmatch(rf"{re.escape(str(out))}: \d+\.\d MB, engines gguf", done.errors[-1])


def test_the_comparison_is_shown_and_kept(verified):
    out, done = verified
    assert re.search(r"^token ids +(\d+) of \1 prompts equal", done.stderr, re.M)
    assert re.search(r"^gguf decoder +q8_0 +top-1 [\d.]+% of \d+, KL ", done.stderr, re.M)
    assert re.search(r"^verdict +within the limits", done.stderr, re.M)
    kept = shown(out)["verification"]
    assert kept["passed"] is True
    assert kept["limits"] == {"min_top1": 0.5, "max_kl": 2.0, "min_cosine": 0.9}
    assert 0 <= kept["engines"]["gguf"]["decoder"]["kl_mean"] < 0.1


def test_the_bundle_answers(verified):
    out, _ = verified
    files = {file.name for file in out.iterdir()}
    assert files == {"bundle.json", "chat_template.jinja", "decoder.gguf", "tokenizer.json", "vision.onnx"}
    found = answered(out)
    assert (found["model"], found["engine"], found["text"].strip()) == ("good", "gguf", "Coffee")
    assert [path.name for path in out.parent.iterdir()] == ["good.edge"]


def test_a_loss_beyond_the_limits_leaves_the_old_bundle(tmp_path):
    out = tmp_path / "old.edge"
    shutil.copytree(STARTER, out)
    line = refused("--format", "gguf", "--no-calibration", "--force", "--max-kl", 1e-7, out=out)
    assert "verification of the gguf decoder failed: the mean KL divergence is " in line and "limit is 1e-07" in line
    assert shown(out) == shown(STARTER)
    assert [path.name for path in tmp_path.iterdir()] == ["old.edge"]


def test_force_replaces_a_bundle_and_nothing_else(tmp_path):
    out, photos = tmp_path / "model.edge", tmp_path / "photos"
    shutil.copytree(STARTER, out)
    assert "exists; use --force to replace it" in refused(out=out)
    made(CHECKPOINT, out, *QUICK, "--force")
    assert "decoder_onnx" in shown(STARTER)["parts"] and "decoder_onnx" not in shown(out)["parts"]
    photos.mkdir()
    (photos / "me.jpg").write_bytes(b"me")
    refused("--force", out=photos)
    assert (photos / "me.jpg").read_bytes() == b"me"


def test_own_pictures_a_cache_of_bytes_and_a_loss_that_is_allowed(tmp_path, pages):
    out = tmp_path / "lean.edge"
    chosen = ("--kv", "q8", "--calibrate", pages, "--calibration")
    narrow = ("--min-top1", 1, "--min-cosine", 1, "--max-kl", 0)
    done = made(CHECKPOINT, out, "--format", "onnx", *chosen, *narrow, "--allow-loss")
    assert f"calibrating with the pictures in '{pages}'" in done.stderr
    assert re.search(r"^verdict +beyond the limits", done.stderr, re.M)
    found = shown(out)
    recipe = found["recipe"]["decoder_onnx"]
    assert (recipe["cache"], recipe["calibration"]["pictures"]) == ("int8", pages.name)  # no path of this machine
    assert recipe["calibration"]["positions"] > 0 and found["verification"]["passed"] is False
    assert answered(out)["text"].strip() == "Coffee"


def test_prompt_weights_and_mmproj_are_further_parts(exported_starter, tmp_path):
    """The fixture made them with --prompt-weights int8 and --mmproj."""
    found = shown(exported_starter)
    assert {"prompt_onnx", "mmproj"} <= found["recipe"].keys()
    assert (exported_starter / "mmproj.gguf").stat().st_size > 1e6
    assert "a quantised decoder.onnx" in refused("--format", "gguf", "--prompt-weights", "int8")
    ferret = make_tiny("ferret_ui", tmp_path)
    assert "no projector for ferret_ui; leave --mmproj out" in refused("--mmproj", source=ferret)


def test_pan_and_scan_cuts_long_pictures(tmp_path):
    out, strip = tmp_path / "panned.edge", tmp_path / "strip.png"
    made(make_tiny("gemma3", tmp_path), out, *QUICK, "--pan-and-scan")
    Image.new("RGB", (2048, 512), "white").save(strip)
    run = ("run", "-m", out, "-i", strip, "Hi", "--max-new-tokens", 1, "--json")
    assert run_command(*run).document["images"][0]["tiles"] > 1
    assert "pan and scan: not known for idefics3; leave --pan-and-scan out" in refused("--pan-and-scan")


def test_tile_tags_stand_before_tiles(tmp_path):
    out, strip = tmp_path / "tagged.edge", tmp_path / "strip.png"
    made(make_tiny("internvl", tmp_path), out, *QUICK, "--tile-tags")
    Image.new("RGB", (128, 32), "white").save(strip)

    def text_tokens(*detail: object) -> tuple[int, int]:
        found = run_command("run", "-m", out, "-i", strip, "Hi", "--max-new-tokens", 1, "--json", *detail).document
        usage = found["usage"]
        return found["images"][0]["tiles"], usage["prompt_tokens"] - usage["image_tokens"]

    (many, tagged), (one, plain) = text_tokens(), text_tokens("--detail", "low")
    assert many > one == 1 and tagged > plain + many
    assert "tile tags: not known for idefics3; leave --tile-tags out" in refused("--tile-tags")


REFUSED = [
    ("--quant q9", "unknown recipe 'q9'; known for the GGUF decoder: "),
    ("--quant auto", "--quant auto needs a limit: --max-size, --max-loss"),
    ("--quant auto --max-size much", "a size is a number with a unit"),
    ("--quant auto --max-loss 0.1 --override head=q4_0", "leave --override out"),
    ("--quant auto --max-loss nan", "max_loss is nan"),
    ("--max-size 3MB", "--max-size and --max-loss are for --quant auto"),
    ("--max-loss 0.1", "--max-size and --max-loss are for --quant auto"),
    ("--kv q8 --format gguf", "--kv is for decoder.onnx"),
    ("--vision q4", "known for the vision tower: fp32, fp16, int8, int8_static, int4"),
    ("--vision int8,int4", "after a comma stands one tower for OpenVINO: int8_static, fp16 or fp32"),
    ("--vision int8,int8_static --no-calibration", "leave --no-calibration out"),
    ("--override head", "write TARGET=TYPE"),
    ("--override head=q4", "there is no type 'q4'"),
    (
        "--override blk.9.ffn_down=q8_0 --format gguf --no-calibration",
        "cannot follow the override 'blk.9.ffn_down=q8_0'",
    ),
    ("--calibrate nowhere --no-calibration", "leave one of them out"),
    ("--calibrate nowhere", "cannot calibrate with 'nowhere': there is no such directory"),
    ("--min-top1 7", "min_top1 is 7"),
    ("--max-kl nan", "max_kl is nan"),
    ("--min-cosine -2", "min_cosine is -2"),
]


@pytest.mark.parametrize("args, reason", REFUSED, ids=[args for args, _ in REFUSED])
def test_what_cannot_be_done_is_one_line(args, reason):
    assert reason in refused(*args.split())


def test_sources_that_are_none(tmp_path):
    assert str(tmp_path / "none") in refused(source=tmp_path / "none")
    assert "quantised" not in refused(source=tmp_path)
    assert "random weights cannot be calibrated" in refused("--calibration", source="shape:smolvlm-256m")
    assert "smolvlm-256m" in refused(source="shape:nothing")


def changed(tmp_path: Path, **fields: Any) -> Path:
    """A copy of the checkpoint whose config.json has other fields; None takes one out."""
    copy = tmp_path / "changed"
    shutil.copytree(CHECKPOINT, copy)
    config = json.loads((copy / "config.json").read_text("utf-8")) | fields
    (copy / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}), "utf-8")
    return copy


def test_a_checkpoint_that_does_not_name_its_class(tmp_path):
    line = refused(source=changed(tmp_path, architectures=None))
    assert """'config.json', architectures: is missing or empty""" in line
    assert """model_type 'idefics3' usually has ["Idefics3ForConditionalGeneration"]""" in line


def test_a_clone_without_its_large_files(tmp_path):
    copy = changed(tmp_path)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 11420496\n"
    for name in ("model.safetensors", "tokenizer.json"):
        (copy / name).write_text(pointer)
    line = refused(source=copy)
    assert "holds Git LFS pointers in place of model.safetensors, tokenizer.json; fetch the files with 'git lfs" in line


@pytest.mark.parametrize("part", ["text_model", "vision_model"])
@pytest.mark.parametrize("value", ["nan", "-inf"])
def test_weights_that_are_no_numbers_are_refused_without_verification_too(tmp_path, part, value):
    copy = changed(tmp_path)
    tensors = load_file(copy / "model.safetensors")
    name = next(
        name for name in sorted(tensors) if part in name and name.endswith("weight") and tensors[name].ndim == 2
    )
    tensors[name][1, 2] = float(value)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    line = refused(*QUICK, source=copy)
    assert name.rpartition("layers")[2] in line and f"has values that are no finite numbers ({value})" in line


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A LoRA adapter of rank 1 that adds nothing, beside its base."""
    shutil.copytree(CHECKPOINT, tmp_path / "base")
    tensors = load_file(CHECKPOINT / "model.safetensors")
    name = next(name for name in sorted(tensors) if name.endswith("q_proj.weight") and "text_model" in name)
    rows, columns = tensors[name].shape
    module = f"base_model.model.{name.removesuffix('.weight')}"
    factors = {"lora_A": torch.ones(1, columns), "lora_B": torch.zeros(rows, 1)}
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file({f"{module}.{key}.weight": value for key, value in factors.items()}, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": "../base", "r": 1, "lora_alpha": 1}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_an_adapter_finds_its_base_from_its_own_folder(tmp_path, adapter):
    elsewhere = tmp_path / "elsewhere" / "deeper"
    elsewhere.mkdir(parents=True)
    (tmp_path / "elsewhere" / "base").mkdir()  # what ../base is from there
    done = run_command("export", adapter, "-o", tmp_path / "a.edge", *QUICK, cwd=elsewhere)
    assert done.code == 0, done.stderr
    shutil.move(tmp_path / "base", tmp_path / "moved")
    line = refused(*QUICK, source=adapter)
    assert "its base '../base' is not there, seen from the adapter's folder; name it with --base" in line
    made(adapter, tmp_path / "b.edge", *QUICK, "--base", tmp_path / "moved")
    assert answered(tmp_path / "b.edge")["text"] == answered(tmp_path / "a.edge")["text"]


def test_a_base_is_for_adapters(tmp_path):
    assert "--base is for adapters, and the source is none" in refused("--base", tmp_path)


def test_quiet_says_nothing(tmp_path):
    done = run_command("export", CHECKPOINT, "-o", tmp_path / "q.edge", *QUICK, "--quiet")
    assert (done.code, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "q.edge" / "bundle.json").is_file()
    assert len(run_command("export", tmp_path, "-o", tmp_path / "x.edge", "-q").errors) == 1


def test_wrong_usage(tmp_path):
    for wrong in ((), (CHECKPOINT,), (CHECKPOINT, "-o", tmp_path / "x.edge", "--format", "tflite")):
        done = run_command("export", *wrong)
        assert (done.code, done.stdout) == (2, "") and "Usage: " in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_export_that_is_stopped_leaves_nothing(tmp_path, number):
    command = [sys.executable, "-m", "edge_mllm", "export", str(CHECKPOINT), "-o", str(tmp_path / "x.edge"), *QUICK]
    started = subprocess.Popen(command, env=command_environment(), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    while not (line := started.stderr.readline()).startswith("writing language model"):
        assert line
    started.send_signal(number)
    rest = started.stderr.read()
    assert (started.wait(60), rest.splitlines()[-1]) == (130, "edge-mllm: interrupted")
    assert list(tmp_path.iterdir()) == []


SWALLOWED = """
import signal, sys

class Closed:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)

def close(frame, event, _):
    if event == "call" and frame.f_code.co_name == "write_decoder_gguf":
        sys.setprofile(None)
        Closed()

sys.setprofile(close)
from edge_mllm.__main__ import main
sys.argv[0] = "edge-mllm"
main()
"""


def test_a_stop_that_an_object_being_finalised_swallows_counts_at_the_next_step(tmp_path):
    command = [sys.executable, "-c", SWALLOWED, "export", str(CHECKPOINT), "-o", str(tmp_path / "x.edge"), *QUICK]
    done = subprocess.run(command, env=command_environment(), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "Exception ignored in: <function Closed.__del__" in done.stderr
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, "edge-mllm: interrupted")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("further", [("--format", "gguf"), ("--format", "both", "--prompt-weights", "int8")])
def test_auto_measures_and_chooses(tmp_path, pages, further):
    out = tmp_path / "auto.edge"
    with_limits = ("--quant", "auto", "--max-size", "9MB", "--max-loss", 1)
    done = made(CHECKPOINT, out, *further, *with_limits, "--calibrate", pages, "--no-verify", seconds=900)
    assert re.search(r"^chosen for gguf: .+ \([\d.]+ MB, loss [\d.]+\)$", done.stderr, re.M)
    files = {file.name for file in out.iterdir()}
    assert {"quantisation.json", "quantisation.md", "quantisation.svg"} <= files
    assert ("prompt.onnx" in files) == ("--prompt-weights" in further)
    assert sum((out / name).stat().st_size for name in ("decoder.gguf", "vision.onnx")) <= 9e6
    assert json.loads((out / "quantisation.json").read_text("utf-8"))
    for engine in ("gguf", "onnx") if "decoder.onnx" in files else ("gguf",):
        assert answered(out, "--engine", engine)["text"].strip()


@pytest.mark.slow
def test_pages_that_ship_calibrate_by_default(tmp_path):
    out = tmp_path / "usual.edge"
    done = made(CHECKPOINT, out, seconds=900)
    assert "calibrating with the pages that ship" in done.stderr
    recipes = shown(out)["recipe"]
    assert {recipes[name]["calibration"]["pictures"] for name in ("decoder_gguf", "decoder_onnx")} == {"shipped"}
    assert re.search(r"^verdict +within the limits", done.stderr, re.M)
    assert [answered(out, "--engine", engine)["text"].strip() for engine in ("onnx", "gguf")] == ["Coffee", "Coffee"]
