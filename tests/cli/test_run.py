"""run, inspect and models through the runner, and once as a real process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from edge_mllm.cli.main import app

ENGINES = ["onnx", "gguf"]
RUN_KEYS = {
    "text": str,
    "finish_reason": str,
    "usage": dict,
    "images": list,
    "timings": dict,
    "peak_rss_bytes": int,
    "peak_anonymous_bytes": int,
    "model": str,
    "engine": str,
    "devices": dict,
}


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    return str(path)


def call(*args: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("engine", ENGINES)
def test_json_is_one_object_with_the_named_keys(tiny_bundle, photo, engine):
    code, out, err = call(
        "run", "-m", tiny_bundle, "-i", photo, "--engine", engine, "--json", "--max-new-tokens", 6, "--threads", 1, "Hi"
    )
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert {key: type(value) for key, value in document.items()} == RUN_KEYS
    assert document["engine"] == engine
    assert document["usage"]["completion_tokens"] == 6
    assert document["images"] == [
        {
            "width": 90,
            "height": 60,
            "tiles": 13,
            "tokens": 52,
            "reduced": False,
            "source": "tower",
            "reduced_by": None,
            "tiles_reused": 0,
        }
    ]
    assert set(document["timings"]) == {
        "load_s", "preprocess_s", "vision_s", "prefill_s", "ttft_s", "decode_s", "prefill_tps", "decode_tps",
        "grammar_s", "probe_s", "picture_s",
    }  # fmt: skip


def test_text_on_stdout_and_costs_on_stderr(tiny_bundle, photo):
    common = ("run", "-m", tiny_bundle, "-i", photo, "--max-new-tokens", 10, "--threads", 1)
    code, out, err = call(*common, "What is it?")
    _, document, _ = call(*common, "--json", "What is it?")
    assert code == 0
    assert out.rstrip("\n") == json.loads(document)["text"].rstrip("\n")
    assert len(err.splitlines()) == 1
    for word in ("52 image tokens (13 tiles)", "10 new", "vision", "prefill", "decode", "tok/s", "peak", "MB"):
        assert word in err


def test_cache_directory_serves_the_next_process(tiny_bundle, photo, tmp_path):
    common = (
        "run",
        "-m",
        tiny_bundle,
        "-i",
        photo,
        "--json",
        "--max-new-tokens",
        3,
        "--cache-dir",
        tmp_path / "c",
        "Hi",
    )
    first, second = (json.loads(call(*common, *extra)[1]) for extra in ((), ("--low-memory",)))
    assert first["text"] == second["text"]
    assert [document["images"][0]["source"] for document in (first, second)] == ["tower", "disk"]
    assert second["timings"]["vision_s"] == 0


def test_options_reach_the_model(tiny_bundle, photo):
    def run(*extra: object) -> dict:
        return json.loads(call("run", "-m", tiny_bundle, "--json", "--threads", 1, "--max-new-tokens", 8, *extra)[1])

    hot = ("--temperature", 1.5, "--top-k", 50, "--top-p", 0.9, "Hello")
    assert run("--seed", 1, *hot)["text"] == run("--seed", 1, *hot)["text"] != run("--seed", 2, *hot)["text"]
    assert run("-i", photo, "-i", photo, "--detail", "low", "Hello")["usage"]["image_tokens"] == 8
    assert run("-i", photo, "--max-image-tokens", 30, "Hello")["usage"]["image_tokens"] <= 30
    assert run("--system", "Be kind.", "Hello")["usage"]["prompt_tokens"] > run("Hello")["usage"]["prompt_tokens"]
    first = run("Hello")["text"]
    assert run("--stop", first[2:4], "Hello")["text"] == first[: first.find(first[2:4])]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-m", "/nowhere.edge", "Hi"], "no model at '/nowhere.edge'"),
        (["-m", "BUNDLE", "-i", "/nowhere.png", "Hi"], "cannot use picture '/nowhere.png'"),
        (["-m", "BUNDLE", "-i", "EMPTY", "Hi"], "empty"),
        (["-m", "BUNDLE", "-i", "TEXT", "Hi"], "not a picture"),
        (["-m", "BUNDLE", "--n-ctx", "60", "-i", "PHOTO", "Hi"], "use --detail low"),
        (["-m", "BUNDLE", "--kv-type", "q8_0", "Hi"], "gguf engine"),
        (["-m", "BUNDLE", "--top-p", "7", "Hi"], "top_p is 7"),
        (["-m", "BUNDLE", "--stop", "", "Hi"], "stop string"),
        (["-m", "BUNDLE", "-i", "PHOTO", "--detail", "high", "--max-image-tokens", "8", "Hi"], "visual tokens"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_failures_are_one_line_and_exit_1(tiny_bundle, photo, tmp_path, args, words, as_json):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    places = {
        "BUNDLE": tiny_bundle, "PHOTO": photo, "EMPTY": tmp_path / "empty.png", "TEXT": tmp_path / "text.png",
    }  # fmt: skip
    args = [str(places.get(arg, arg)) for arg in args]
    code, out, err = call("run", *args, *(["--json"] if as_json else []))
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("edge-mllm: ")
    assert words in err


@pytest.mark.parametrize(
    "args",
    [
        ["run"],
        ["run", "--engine", "tpu", "Hi"],
        ["run", "--max-new-tokens", "0", "Hi"],
        ["run", "--detail", "x", "Hi"],
        ["frobnicate"],
        ["run", "--nonsense", "Hi"],
    ],
)
def test_wrong_usage_exits_2(args):
    code, out, err = call(*args)
    assert (code, out) == (2, "")
    assert err


def test_traceback_on_request(tiny_bundle, monkeypatch):
    monkeypatch.setenv("EDGE_MLLM_TRACEBACK", "1")
    result = CliRunner().invoke(app, ["run", "-m", "/nowhere.edge", "Hi"])
    assert result.exit_code == 1
    assert type(result.exception).__name__ == "ModelNotFoundError"


def test_damaged_bundle(tiny_bundle, tmp_path):
    import shutil

    copy = tmp_path / "copy.edge"
    shutil.copytree(tiny_bundle, copy)
    graph = copy / "decoder.onnx.data"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    code, out, err = call("run", "-m", copy, "Hi")
    assert (code, out) == (1, "")
    assert "decoder.onnx.data" in err
    assert len(err.splitlines()) == 1
    code, out, err = call("run", "-m", copy, "--engine", "gguf", "--max-new-tokens", 2, "Hi")  # does not read that file
    assert code == 0


def test_interruption_is_a_line_and_130(tiny_bundle, monkeypatch):
    import edge_mllm.session.open

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(edge_mllm.session.open, "open_decoder", interrupted)
    code, out, err = call("run", "-m", tiny_bundle, "Hi")
    assert (code, out, err) == (130, "", "edge-mllm: interrupted\n")


def environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": str(root)}


def process(*args: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "edge_mllm", *(str(arg) for arg in args)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(), **pipes, **options)


def test_as_a_process(tiny_bundle, photo):
    ran = process("run", "-m", tiny_bundle, "-i", photo, "--json", "--max-new-tokens", 4, "Hi")
    out, err = ran.communicate(timeout=120)
    assert (ran.returncode, err) == (0, "")
    assert json.loads(out)["usage"]["completion_tokens"] == 4


def test_closed_pipe_is_quiet(tiny_bundle):
    ran = process("run", "-m", tiny_bundle, "--max-new-tokens", 2000, "--temperature", 5, "Hi")
    ran.stdout.read(1)
    ran.stdout.close()
    ran.wait(timeout=60)
    err = ran.stderr.read()
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert ran.returncode in (0, 141)


def test_import_is_light():
    """How long it takes is measured (benchmarks); what makes it long is counted here."""
    code = (
        "import numpy, sys; before = set(sys.modules); import edge_mllm; new = set(sys.modules) - before;"
        "print(len(new), *sorted({name.split('.')[0] for name in new}))"
    )
    out = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    count, *names = out.stdout.split()
    heavy = {
        "torch",
        "transformers",
        "llama_cpp",
        "onnxruntime",
        "onnx",
        "tokenizers",
        "typer",
        "rich",
        "huggingface_hub",
    }
    assert not heavy & set(names)
    assert int(count) <= 240  # modules of the standard library, Pillow and Jinja among them


def test_version_and_help():
    assert call("--version")[0] == 0
    code, out, _ = call("--help")
    assert code == 0
    for command in ("run", "chat", "inspect", "models"):
        assert command in out
