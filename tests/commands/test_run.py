"""``edge-mllm run``, end to end: the answer on standard output, its costs on standard error, or one JSON object."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands.command_line import DEMO, STARTER, Ended, command_environment, run_command
from PIL import Image, ImageDraw

import edge_mllm

pytestmark = pytest.mark.xdist_group("run-command")
LABEL, SIGN = DEMO / "label.png", DEMO / "sign.png"
QUESTION = "Read the word."
TILES, TOKENS = 5, 180
"""Of the label as the starter cuts it, see starter/README.md."""
HOT = ("--temperature", 2.5, "--max-new-tokens", 40)


@functools.cache
def run(*args: object) -> Ended:
    """One process for equal arguments: they have equal results."""
    return run_command("run", *args)


def ask(*args: object) -> dict[str, Any]:
    """What is answered about the label."""
    return run("-i", LABEL, QUESTION, "--json", *args).document


def refused(*args: object) -> str:
    """The one line of a question about the label that fails."""
    done = run("-i", LABEL, QUESTION, *args)
    assert (done.code, done.stdout) == (1, "")
    (line,) = done.errors
    assert line.startswith("edge-mllm: ")
    return line


def test_text_comes_on_standard_output_and_its_costs_on_standard_error():
    done = run("-i", LABEL, QUESTION)
    assert (done.code, done.stdout) == (0, "Coffee\n")  # the model begins with a space, which is in the API's text
    assert ask()["text"] == " Coffee"
    (costs,) = done.errors
    assert costs.startswith(f"onnx | 28 text + {TOKENS} image tokens ({TILES} tiles), 8 new | load ")
    for stage in ("first token", "tiling", "vision", "prefill", "decode"):
        assert re.search(rf"{stage} [\d.]+ ms", costs)
    assert re.search(r"prefill \d+ tok/s, decode [\d.]+ tok/s \| peak \d+ MB", costs)


def test_the_library_answers_as_the_command_does():
    found = ask()
    with edge_mllm.load() as model:
        answer = model.generate(QUESTION, [LABEL])
        pieces = list(model.stream(QUESTION, [LABEL]))
    assert (answer.text, answer.finish_reason) == (found["text"], found["finish_reason"])
    assert "".join(piece.text for piece in pieces) == found["text"]


def test_json_says_what_the_answer_is_made_of():
    found = ask()
    assert found["text"].strip() == "Coffee"
    assert (found["model"], found["engine"], found["finish_reason"]) == ("starter", "onnx", "stop")
    assert found["usage"] == {"prompt_tokens": TOKENS + 28, "image_tokens": TOKENS, "completion_tokens": 8}
    (picture,) = found["images"]
    assert picture == {
        "width": 640, "height": 480, "tiles": TILES, "tokens": TOKENS, "reduced": False, "source": "tower",
        "reduced_by": None,
        "tiles_reused": 0,
    }  # fmt: skip
    times = found["timings"]
    assert 0 < times["vision_s"] < times["ttft_s"] and 0 < times["prefill_s"] < times["ttft_s"]
    assert found["peak_rss_bytes"] > found["peak_anonymous_bytes"] > 0
    assert not {"tuned", "reduction", "large_page_bytes"} & set(found)


def test_several_pictures_and_none():
    both = run("--image", LABEL, "-i", SIGN, "--json", QUESTION).document
    assert [picture["width"] for picture in both["images"]] == [640, 800]
    assert both["usage"]["image_tokens"] == sum(picture["tokens"] for picture in both["images"])
    none = run("--json", QUESTION).document
    assert none["images"] == [] and none["usage"]["image_tokens"] == 0
    assert "image tokens" not in run(QUESTION, "--max-new-tokens", 2).stderr


def test_pictures_as_people_have_them(tmp_path):
    with Image.open(LABEL) as label:
        label.convert("RGB").save(tmp_path / "a photo.jpg", quality=95)
        label.convert("RGBA").save(tmp_path / "clear.webp", lossless=True)
    for name in ("a photo.jpg", "clear.webp"):
        assert run("-i", tmp_path / name, QUESTION).stdout.strip() == "Coffee"
    blank = Image.new("RGB", (31, 200), "white")
    ImageDraw.Draw(blank).rectangle((5, 5, 20, 20), fill="black")
    blank.save(tmp_path / "narrow.bmp")
    (narrow,) = run("-i", tmp_path / "narrow.bmp", "--json", QUESTION).document["images"]
    assert (narrow["width"], narrow["height"]) == (31, 200)


@pytest.mark.parametrize("kind", ["missing", "directory", "empty", "text"])
def test_a_picture_that_cannot_be_used_is_one_line(tmp_path, kind):
    path = tmp_path / "x.png"
    if kind == "directory":
        path.mkdir()
    elif kind != "missing":
        path.write_text("" if kind == "empty" else "no picture")
    done = run_command("run", "-i", path, QUESTION)
    reasons = {"missing": "no such file", "directory": "directory", "empty": "empty", "text": "not a picture"}
    assert (done.code, done.stdout, len(done.errors)) == (1, "", 1)
    assert str(path) in done.stderr and reasons[kind] in done.stderr


def test_model_is_the_one_that_is_named(tmp_path, exported_starter):
    assert ask("-m", STARTER)["text"] == ask()["text"]
    assert ask("--model", exported_starter)["model"] == "made"
    done = run("-m", tmp_path / "none.edge", QUESTION)
    assert (done.code, done.stdout) == (1, "")
    assert done.errors == [f"edge-mllm: no model at '{tmp_path / 'none.edge'}': no such file or directory"]


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_engine(engine):
    found = ask("--engine", engine, "--threads", 1)
    assert (found["engine"], found["text"].strip()) == (engine, "Coffee")


def test_threads_outside_what_a_machine_has():
    assert "threads is 100000" in refused("--threads", 100000)
    assert run("--threads", 0, QUESTION).code == 2


def test_n_ctx_holds_prompt_and_answer():
    cut = ask("--n-ctx", TOKENS + 28 + 3)
    assert cut["finish_reason"] == "length"
    assert cut["usage"]["completion_tokens"] < ask()["usage"]["completion_tokens"]
    assert ask()["text"].startswith(cut["text"])
    assert "the context holds 20" in refused("--n-ctx", 20)


def test_kv_type_is_for_the_gguf_engine():
    assert ask("--engine", "gguf", "--kv-type", "q8_0", "--threads", 1)["text"].strip() == "Coffee"
    assert "kv_type 'q8_0' is for the gguf engine" in refused("--engine", "onnx", "--kv-type", "q8_0")


def test_cache_dir_serves_the_next_process(tmp_path):
    common = ("run", "-i", LABEL, QUESTION, "--json", "--cache-dir", tmp_path / "seen")
    first, second = run_command(*common).document, run_command(*common).document
    assert [found["images"][0]["source"] for found in (first, second)] == ["tower", "disk"]
    assert first["text"] == second["text"]
    assert sum(file.stat().st_size for file in (tmp_path / "seen").iterdir()) > TOKENS * 256


def test_low_memory_loads_the_decoder_after_the_pictures():
    lean, usual = ask("--low-memory"), ask()
    assert lean["text"] == usual["text"]
    assert lean["peak_anonymous_bytes"] < usual["peak_anonymous_bytes"]
    held = ("--max-memory", "10MB")  # what is still to be loaded is counted in the refusal
    assert ", decoder " in refused("--low-memory", *held) and ", decoder " not in refused(*held)


def test_prompt_weights_compute_the_prompt(exported_starter):
    said = "Read every price and every word in the shop on the corner, and tell a story about the bread and the milk."
    draw = ("-m", exported_starter, "--json", "--temperature", 1.5, "--max-new-tokens", 64, said)
    options = ((), ("--prompt-weights",), ("--no-prompt-weights",))
    default, used, unused = (run(*draw, "--seed", 1, *option).document["text"] for option in options)
    assert default == used != unused


def test_precision_chooses_files_of_a_published_directory(published_starter):
    small, whole = (ask("-m", published_starter, *more) for more in ((), ("--precision", "fp32")))
    assert small["text"].strip() == whole["text"].strip() == "Coffee"
    assert small["peak_rss_bytes"] < whole["peak_rss_bytes"] - 5e6  # 2 and 13 MB of decoder
    named = ask("-m", published_starter, "--precision", "vision_encoder=fp32,decoder_model_merged=q4")
    assert named["text"].strip() == "Coffee"
    assert "has no embed_tokens in q8; it has fp32" in refused("-m", published_starter, "--precision", "q8")
    assert "no precision to choose" in refused("--precision", "q4")


def test_mmproj_gives_a_gguf_file_its_eyes(exported_starter):
    decoder, tower = STARTER / "decoder.gguf", exported_starter / "mmproj.gguf"
    found = ask("-m", decoder, "--mmproj", tower, "--threads", 1)
    assert (found["engine"], found["text"].strip()) == ("gguf", "Coffee")
    assert "takes no pictures without its mmproj" in refused("-m", decoder)
    assert "goes with a GGUF file" in refused("--mmproj", tower)


def test_vision_engine():
    assert ask("--vision-engine", "ort")["text"] == ask()["text"]
    engine = "openvino"
    if importlib.util.find_spec("openvino") is None:
        assert "pip install 'edge-mllm[openvino]'" in refused("--vision-engine", engine)
    else:
        assert ask("--vision-engine", engine)["usage"]["image_tokens"] == TOKENS


def test_provider():
    plain = ask("--provider", "cpu")
    assert plain["devices"]["vision"] == {"provider": "cpu", "device": "CPU"}
    assert ask("--provider", "auto")["text"] == plain["text"]
    assert "'starter' has no tower for an NPU" in refused("--provider", "qnn:v75") or needs_npu_extra()
    assert "no provider 'gpu'" in refused("--provider", "gpu")
    assert "contradict each other" in refused("--provider", "cpu", "--vision-engine", "openvino")


def needs_npu_extra():
    """Without the library there is no simulator either."""
    return "no Hexagon NPU" in refused("--provider", "qnn:v75")


def test_large_pages_are_told_where_they_were_asked_for():
    assert ask("--large-pages")["large_page_bytes"] >= 0
    assert "large_page_bytes" not in ask("--no-large-pages")


def test_system_goes_before_the_question():
    found = ask("--system", "You are a cashier.")
    assert found["usage"]["prompt_tokens"] > ask()["usage"]["prompt_tokens"] + len("You are a cashier.") // 2
    with edge_mllm.load() as model:
        assert model.generate(QUESTION, [LABEL], system="You are a cashier.").text == found["text"]


def test_max_new_tokens_cuts_the_answer():
    found = ask("--max-new-tokens", 3)
    assert (found["usage"]["completion_tokens"], found["finish_reason"]) == (3, "length")
    assert ask()["text"].startswith(found["text"]) and found["text"] != ask()["text"]
    assert run(QUESTION, "--max-new-tokens", 0).code == 2


def test_temperature_and_seed_draw():
    once, other = (ask(*HOT, "--seed", seed)["text"] for seed in (1, 2))
    assert once != other
    again = run_command("run", "-i", LABEL, QUESTION, *HOT, "--seed", 1)
    assert again.stdout.removesuffix("\n") == once.lstrip()
    assert "temperature is inf" in refused("--temperature", "inf")


@pytest.mark.parametrize("narrow", [("--top-k", 1), ("--top-p", 1e-6), ("--min-p", 1)])
def test_draws_among_one_token_are_the_greedy_answer(narrow):
    drawn = (*HOT, "--seed", 1)
    assert ask(*drawn, *narrow)["text"] == ask()["text"] != ask(*drawn)["text"]


@pytest.mark.parametrize("option, value", [("--top-p", 7), ("--min-p", "nan"), ("--repetition-penalty", 0)])
def test_sampling_outside_its_range(option, value):
    assert f"{option.removeprefix('--').replace('-', '_')} is " in refused(option, value)


def test_repetition_penalty_keeps_letters_from_coming_twice():
    found = ask("--repetition-penalty", 50, "--max-new-tokens", 6)["text"]
    assert "ff" not in found and "ee" not in found


def test_stop_ends_the_answer_before_its_text():
    found = ask("--stop", "no such text", "--stop", "ff")
    assert (found["text"].strip(), found["finish_reason"]) == ("Co", "stop")
    assert "a stop string is empty" in refused("--stop", "")


def test_detail_and_max_image_tokens():
    low, budget = ask("--detail", "low"), ask("--detail", "auto", "--max-image-tokens", 40)
    assert low["images"][0]["tiles"] == budget["images"][0]["tiles"] == 1
    assert (low["images"][0]["reduced_by"], budget["images"][0]["reduced_by"]) == ("detail", "max_image_tokens")
    assert ask("--detail", "high")["images"] == ask()["images"]
    assert f"at least {TOKENS} visual tokens" in refused("--detail", "high", "--max-image-tokens", 40)


def test_max_memory_and_max_ttft_are_kept_or_refused():
    assert ask("--max-memory", "4GB", "--max-ttft", 600)["images"] == ask()["images"]
    assert re.search(r"needs about \d+ MB of memory .* allows 10 MB", refused("--max-memory", "10MB"))
    assert re.search(r"needs about \d+ ms to the first token .* allows 0 ms", refused("--max-ttft", 0.00001))
    assert "a size is a number with a unit" in refused("--max-memory", "much")


def test_image_reduction_keeps_a_share():
    found = ask("--image-reduction", "uniform:1/4")
    assert found["usage"]["image_tokens"] == TOKENS // 4
    assert (found["reduction"]["tokens_before"], found["reduction"]["asked"]) == (TOKENS, "uniform:0.25")
    assert "cannot read the image reduction 'never'" in refused("--image-reduction", "never")


def test_json_schema_holds_the_answer(tmp_path):
    properties = {"word": {"enum": ["Tea", "Coffee", "Bread"]}, "dear": {"type": "boolean"}}
    schema = tmp_path / "schema.json"
    closed = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    schema.write_text(json.dumps(closed))
    found = ask("--json-schema", schema)
    held = json.loads(found["text"])
    assert set(held) == set(properties) and held["word"] in ("Tea", "Coffee", "Bread") and held["dear"] in (True, False)
    assert found["timings"]["grammar_s"] > 0
    schema.write_text("{")
    assert "cannot use the JSON schema" in refused("--json-schema", schema, "--seed", 0)
    assert "No such file" in refused("--json-schema", tmp_path / "none.json")


def test_prompt_lookup_guesses_and_changes_nothing():
    listed = ("--image", LABEL, "--json", "--max-new-tokens", 30, "--repetition-penalty", 1, "Say Coffee Coffee Coffee")
    guessed, plain = run(*listed, "--prompt-lookup", 4).document, run(*listed).document
    assert guessed["text"] == plain["text"]
    assert guessed["usage"]["guessed_tokens"] >= guessed["usage"]["right_tokens"] >= 0
    assert "guessed_tokens" not in plain["usage"]
    assert "prompt_lookup is 65" in refused("--prompt-lookup", 65)


@pytest.mark.parametrize(
    "words",
    [
        ("-i", LABEL, SIGN, QUESTION),
        (QUESTION, "-i", LABEL, SIGN),
        (QUESTION, "--image", LABEL, SIGN, "--seed", 3),
        ("-i", LABEL, SIGN, "--max-new-tokens", 64, "--", QUESTION),
        ("-i", LABEL, "--max-new-tokens", 64, QUESTION, "-i", SIGN),
        ("-i", LABEL, SIGN, QUESTION, "--low-memory"),
    ],
    ids=str,
)
def test_several_pictures_after_one_option(words):
    found = run("--json", *words).document
    assert [picture["width"] for picture in found["images"]] == [640, 800]
    assert found["text"] == run("--json", "-i", LABEL, "-i", SIGN, QUESTION).document["text"]


def test_a_long_question_after_a_picture_is_no_file():
    long = QUESTION + " Please." * 60
    found = run("--json", "-i", LABEL, long).document
    assert len(found["images"]) == 1 and found["usage"]["prompt_tokens"] > TOKENS + 28 + 60
    wrong = run("-i", LABEL, long, "Why?")
    assert (wrong.code, len(wrong.errors)) == (1, 1) and "File name too long" in wrong.errors[0]


def test_a_pattern_of_the_shell(tmp_path):
    for name in ("a b.png", "c.png"):
        (tmp_path / name).write_bytes(LABEL.read_bytes())
    command = f"cd {tmp_path} && {sys.executable} -m edge_mllm run -i *.png 'Read the word.' --json"
    done = subprocess.run(command, shell=True, env=command_environment(), capture_output=True, timeout=120, check=True)
    assert len(json.loads(done.stdout)["images"]) == 2


def test_a_picture_from_standard_input_or_a_pipe(tmp_path):
    image = LABEL.read_bytes()
    for place in ("-", "/dev/stdin"):
        done = run_command("run", "-i", place, QUESTION, "-q", stdin=image)
        assert (done.code, done.stdout, done.stderr) == (0, "Coffee\n", "")
    script = f"{sys.executable} -m edge_mllm run -q 'Read the word.' -i <(cat {LABEL})"
    done = subprocess.run(
        ["bash", "-c", script], env=command_environment(), capture_output=True, timeout=120, check=True
    )
    assert done.stdout == b"Coffee\n"


@pytest.mark.parametrize(
    "word, stdin, reason",
    [
        ("-", "", "cannot use picture from standard input: it gave no bytes"),
        ("-", "no picture", "not a picture"),
        ("/dev/null", "", "cannot use picture '/dev/null': it gave no bytes"),
        ("https://example.com/a.jpg", "", "'https://example.com/a.jpg': addresses are not fetched; download"),
        ("data:image/png;base64,AAAA", "", "data: addresses are not read"),
    ],
)
def test_what_gives_no_picture_is_one_true_line(word, stdin, reason):
    done = run_command("run", "-i", word, QUESTION, stdin=stdin)
    assert (done.code, done.stdout, len(done.errors)) == (1, "", 1)
    assert reason in done.errors[0]


@pytest.mark.parametrize("part", ["decoder.onnx", "vision.onnx", "tokenizer.json", "alone.gguf"])
def test_a_clone_without_its_large_files(tmp_path, part):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 1901232\n"
    if part == "alone.gguf":
        model = tmp_path / part
        model.write_text(pointer)
    else:
        model = tmp_path / "cloned.edge"
        shutil.copytree(STARTER, model)
        (model / part).write_text(pointer)
    done = run_command("run", "-m", model, QUESTION)
    assert (done.code, done.stdout, len(done.errors)) == (1, "", 1)
    assert f"the file '{part}' is a Git LFS pointer; fetch the file with 'git lfs pull'" in done.errors[0]


def test_an_answer_that_was_cut_says_by_what():
    cut = run("-i", LABEL, QUESTION, "--max-new-tokens", 3)
    assert cut.errors[0].endswith(" | cut after 3 tokens; allow more with --max-new-tokens")
    full = run("-i", LABEL, QUESTION, "--n-ctx", TOKENS + 28 + 3)
    assert full.errors[0].endswith("allow more with --n-ctx, because the context is full")
    assert "cut" not in run("-i", LABEL, QUESTION).stderr


def test_quiet_and_json_on_one_line_or_several():
    assert run("-i", LABEL, QUESTION, "--quiet").stderr == ""
    one, several = run("-i", LABEL, QUESTION, "--json"), run("-i", LABEL, QUESTION, "--json-indent")
    assert one.stdout.count("\n") == 1 < several.stdout.count("\n")
    assert one.document["text"] == several.document["text"]


def test_a_terminal_sees_which_tile_is_encoded():
    primary, secondary = pty.openpty()
    command = [sys.executable, "-m", "edge_mllm", "run", "-i", str(LABEL), QUESTION]
    environment = command_environment() | {"TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=secondary) as ran:
        os.close(secondary)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal's end is told
            while part := os.read(primary, 4096):
                shown += part
        assert ran.stdout is not None and ran.stdout.read() == b"Coffee\n"
    os.close(primary)
    tiles = {int(number) for number in re.findall(rf"tile (\d+) of {TILES}".encode(), shown)}
    assert tiles and tiles <= set(range(1, TILES + 1))
    assert b"tile" not in run("-i", LABEL, QUESTION).stderr.encode().replace(b"(5 tiles)", b"").replace(b"tiling", b"")


def test_wrong_usage():
    for wrong in ((), ("--engine", "tpu", QUESTION)):
        done = run(*wrong)
        assert (done.code, done.stdout) == (2, "") and "Usage: " in done.stderr


def test_nothing_is_left_where_it_was_started(tmp_path: Path):
    done = run_command("run", "-i", LABEL, QUESTION, cwd=tmp_path)
    assert done.stdout.strip() == "Coffee" and list(tmp_path.iterdir()) == []
