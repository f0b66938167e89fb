"""``edge-mllm plan`` as a user starts it, on the bundle that ships."""

from __future__ import annotations

import re
import shutil

import pytest
from commands.command_line import STARTER, in_terminal, run_command


@pytest.fixture(scope="module")
def told():
    done = run_command("plan", STARTER, "--json", "--image-size", "640x480", "--answer-tokens", "32", "--memory", "1GB")
    return done.document


def test_the_question_is_the_one_that_was_typed(told):
    question = told["question"]
    assert (question["width"], question["height"], question["answer_tokens"]) == (640, 480, 32)
    assert question["memory_limit"] == 1_000_000_000
    assert told["pictures"][0] == {"width": 640, "height": 480, "tiles": 5, "tokens": 180}


def test_costs_are_those_of_the_files(told):
    costs = {cost["engine"]: cost for cost in told["costs"] if cost["decoder"]["default"] and cost["tower"]["default"]}
    assert costs.keys() == {"onnx", "gguf"}
    assert costs["gguf"]["decoder"]["file_bytes"] == (STARTER / "decoder.gguf").stat().st_size
    for cost in costs.values():
        assert cost["fits"] is True
        assert cost["disk_bytes"] < cost["memory_bytes"] < 1_000_000_000
        assert cost["ttft_s"] > 0 and cost["decode_tps"] > 0


def test_a_device_and_too_little_memory():
    done = run_command("plan", "--device", "rpi5", "--memory", "100MB")
    assert (done.code, done.stderr) == (1, "")
    assert "Raspberry Pi 5" in done.stdout
    assert done.stdout.count("too large") == 2
    advice = done.stdout.splitlines()[0]
    assert re.match(
        r"Nothing fits in 100 MB of memory: the smallest way, gguf \S+ with a tower in int8, needs \d+ MB", advice
    )
    assert advice.endswith("Take a smaller model.")  # there is none that export knows


def test_advice_comes_first():
    done = run_command("plan", "--memory", "1GB", "--device", "rpi4")
    first, *rest = done.stdout.splitlines()
    assert done.code == 0 and "Raspberry Pi 4" in done.stdout
    expected = (
        r"Fits in 1 GB of memory: (gguf|onnx) \S+ with a tower in int8 needs \d+ MB, first word after about [\d.]+"
    )
    assert re.match(expected, first), first
    assert run_command("plan", "--memory", "1GB", "--device", "rpi4", "--json-indent").document["advice"] == first
    assert any("too large" not in line for line in rest)


def test_a_smaller_model_is_named():
    done = run_command("plan", "shape:smolvlm-500m", "--memory", "500MB", "--device", "rpi5")
    assert done.code == 1
    assert re.search(r"needs \d+ MB\. smolvlm-256m fits with \d+ MB\.$", done.stdout.splitlines()[0])


@pytest.mark.parametrize("device", ["rpi4", "rpi5", "jetson-orin-nano", "phone-2023"])
def test_boards_are_estimates_with_their_source(device):
    document = run_command("plan", "--device", device, "--json").document
    assert document["device"]["estimated"] is True and document["device"]["memory_bytes"] >= 4 << 30
    assert (
        "by the ratio of limits; no measurement: limits by arithmetic from published figures"
        in document["device"]["source"]
    )
    assert all(cost["ttft_s"] > 0 for cost in document["costs"] if cost["decoder"]["default"])


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_it_fits_the_terminal(tmp_path, columns):
    bundle = tmp_path / "a-long-name-of-a-folder" / "a-bundle-that-has-a-long-name.edge"
    shutil.copytree(STARTER, bundle)
    code, plan = in_terminal("plan", bundle, "--device", "rpi5", columns=columns)
    assert code == 0 and plan.startswith("Fits in")
    assert all(len(line.rstrip()) <= columns for line in plan.splitlines())
    for words in (("inspect", bundle), ("models", bundle.parent)):
        code, shown = in_terminal(*words, columns=columns)
        assert code == 0 and str(bundle) in shown
    _, recipes = in_terminal("models", "--recipes", columns=columns)
    assert all(re.search(rf"\b{name}\b", recipes) for name in ("int8_static", "q4_0_head4", "integers"))
    assert all(len(line.rstrip()) <= columns for line in recipes.splitlines())
    _, health = in_terminal("doctor", columns=columns)
    assert re.search(r"\bonnxruntime\b", health) and "processor" in health


@pytest.mark.parametrize(
    ("source", "env", "words"),
    [
        ("org/name", {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}, "the hub cannot be reached"),
        ("org/name", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE forbids asking the hub"),
        ("/nowhere", {}, "no such directory, and no hub id (org/name) or shape (shape:NAME)"),
        ("nowhere", {}, "no such directory, and no hub id (org/name) or shape (shape:NAME)"),
    ],
)
def test_what_is_not_there_is_said_at_once(tmp_path, source, env, words):
    """It took half a minute, and then a file was said to be missing there."""
    done = run_command("plan", source, env={**env, "HF_HOME": str(tmp_path)}, seconds=20)
    assert (done.code, done.stdout, len(done.errors)) == (1, "", 1)
    assert words in done.errors[0] and "config.json" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--device", "abacus"), "abacus"),
        (("--memory", "much"), "a size is a number with a unit"),
        (("--memory", "0"), "a size must be above 0"),
        (("--image-size", "big"), "WIDTHxHEIGHT"),
        (("/nowhere",), "/nowhere"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, words):
    done = run_command("plan", *arguments)
    assert done.code in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
