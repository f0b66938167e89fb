"""``edge-mllm chat`` from a pipe, end to end: answers on standard output, a line of costs a turn on standard error."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from commands.command_line import DEMO, STARTER, Ended, run_command

import edge_mllm
from edge_mllm import EdgeMLLMError

pytestmark = pytest.mark.xdist_group("chat-command")
LABEL, SIGN = DEMO / "label.png", DEMO / "sign.png"
WORD, PRICE = "Read the word.", "What is the price?"
HOT = ("--temperature", 2.5, "--max-new-tokens", 40)


@functools.cache
def talk(lines: str, *args: object) -> Ended:
    """One conversation for equal lines and arguments: they have equal results."""
    return run_command("chat", *args, stdin=lines + "\n")


def say(*args: object, lines: str = WORD) -> str:
    """The answer about the label."""
    done = talk(lines, "-i", LABEL, *args)
    assert done.code == 0
    assert len(done.errors) == len(lines.splitlines()), done.stderr
    return done.stdout.removesuffix("\n")


def refused(*args: object, lines: str = WORD, code: int = 1) -> str:
    """The one line of a question about the label that fails."""
    done = talk(lines, "-i", LABEL, *args)
    assert (done.code, done.stdout) == (code, "")
    (line,) = done.errors
    return line


def tokens(done: Ended) -> list[int]:
    """Visual tokens in every turn's costs."""
    return [int(count) for count in re.findall(r"\+ (\d+) image tokens", done.stderr)]


def test_turns_reuse_what_was_computed_and_the_library_says_the_same():
    done = talk(f"{WORD}\n{PRICE}", "--image", LABEL)
    answers = done.stdout.splitlines()
    assert (done.code, answers) == (0, ["Coffee", "$4.60"])  # without the space that the model begins with
    first, second = done.errors
    assert first.startswith("onnx | 28 text + 180 image tokens (5 tiles), 8 new | load ") and "reused" not in first
    assert int(re.search(r", (\d+) reused, ", second)[1]) > 180
    with edge_mllm.load() as model:
        chat = model.chat()
        assert [chat.ask(WORD, [LABEL]).text, chat.ask(PRICE).text] == [f" {answer}" for answer in answers]


def test_commands_of_a_conversation(tmp_path):
    spaced = tmp_path / "a picture.png"
    shutil.copy(LABEL, spaced)
    lines = f"/image '{spaced}'\n/image {tmp_path}/none.png\n/image 'open\n/help\n\n{WORD}\n/quit\nnever said"
    done = talk(lines)
    assert (done.code, done.stdout.strip()) == (0, "Coffee")
    missing, unread, *helped, costs = done.errors
    assert missing == f"edge-mllm: cannot use picture '{tmp_path}/none.png': no such file"
    assert unread.startswith("cannot read that")
    assert [line.split()[0] for line in helped] == ["/image", "/clear", "/save", "/help", "/quit"]
    assert "180 image tokens" in costs


def test_the_end_of_the_input_ends_it():
    for nothing in ("", "/quit"):
        assert talk(nothing).stdout == talk(nothing).stderr == ""
        assert talk(nothing).code == 0


def test_a_bad_picture_keeps_the_question_and_the_pictures_beside_it(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    done = talk(f"{WORD}\n\n\n", "-i", LABEL, broken)
    assert (done.code, done.stdout) == (0, "Coffee\n")  # the empty line asked once more, the next one nothing
    bad, kept, costs = done.errors
    assert f"cannot use picture '{broken}'" in bad and "not a picture" in bad
    assert kept == "the question waits with 1 of 2 pictures; an empty line asks it"
    assert "180 image tokens" in costs
    other = talk(f"{WORD}\n/image {SIGN}\n{PRICE}", "-i", LABEL, broken)
    assert tokens(other) == [180 + 108]  # another question takes the waiting pictures and a new one


def test_pictures_come_in_a_row_through_a_pipe_but_not_from_where_questions_do(tmp_path):
    both = talk(WORD, "-i", LABEL, SIGN, "--quiet")
    assert (both.code, both.stderr) == (0, "") and both.stdout
    assert tokens(talk(WORD, "--image", LABEL, SIGN)) == [180 + 108]
    assert "a chat reads its questions there" in refused("-i", "-")
    assert "addresses are not fetched" in talk("/image https://example.com/a.png").stderr
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cp", LABEL, pipe]):
        assert run_command("chat", "-i", pipe, "-q", stdin=WORD).stdout == "Coffee\n"


@pytest.mark.parametrize("kind", ["folder", "directory", "device"])
def test_a_chat_file_that_cannot_be_is_refused_at_the_start(tmp_path, kind):
    file = {"folder": tmp_path / "none" / "talk.bin", "directory": tmp_path, "device": Path("/dev/zero")}[kind]
    done = run_command("chat", "--chat-file", file, stdin=WORD, seconds=60)
    assert (done.code, done.stdout, len(done.errors)) == (1, "", 1)
    reason = f"there is no folder '{file.parent}'" if kind == "folder" else "it is no file"
    assert done.errors[0] == f"edge-mllm: cannot use the saved chat '{file}': {reason}"
    with edge_mllm.load() as model, pytest.raises(EdgeMLLMError, match=r"no file|No such file"):
        model.load_chat(file)


@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_a_picture_that_is_none_is_said_before_the_first_question(tmp_path, kind):
    path = tmp_path if kind == "directory" else tmp_path / "none.png"
    done = talk(WORD, "-i", path)
    assert (done.code, done.stdout, len(done.errors)) == (1, "", 1)
    assert f"cannot use picture '{path}'" in done.stderr


def test_chat_file_goes_on_in_the_next_process(tmp_path):
    file = tmp_path / "talk.bin"
    first = talk(WORD, "-i", LABEL, "--chat-file", file, "--system", "You are a cashier.")
    assert (first.code, first.stdout.strip()) == (0, "Coffee")
    second = run_command("chat", "--chat-file", file, "--system", "You are a cashier.", stdin=PRICE)
    assert (second.code, second.stdout.strip()) == (0, "$4.60")
    assert int(re.search(r", (\d+) reused, ", second.stderr)[1]) > 180
    assert [each.name for each in tmp_path.iterdir()] == ["talk.bin"]
    with edge_mllm.load() as model:
        saved = model.load_chat(file)
        assert saved.system == "You are a cashier."
        assert [message["role"] for message in saved.messages] == ["system", *("user", "assistant") * 2]
    kept = file.read_bytes()
    assert b"You: [picture] Read the word.\n\nModel: Coffee\n\nYou: What is the price?" in kept
    bundle = Path(shutil.copytree(STARTER, tmp_path / "other.edge"))
    spec = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(spec | {"name": "other"}))
    for option, reason in (
        (("--system", "You are rude."), "it began with another system message"),
        (("-m", bundle), "it was saved with another bundle"),
    ):
        done = run_command("chat", "--chat-file", file, *option, stdin=PRICE)
        assert (done.code, done.stdout) == (1, "")
        assert done.errors[0].startswith(f"edge-mllm: cannot use the saved chat '{file}': {reason}")
    for option, difference in ((("--engine", "gguf"), "engine (onnx"), (("--no-prompt-weights",), "prompt weights")):
        done = run_command("chat", "--chat-file", file, *option, stdin=PRICE)
        assert (done.code, done.stdout.strip()) == (0, "$4.60")
        told, costs = done.errors
        assert told.startswith(f"the chat was saved with another {difference}") and "its words are kept" in told
        assert "reused" not in costs and "180 image tokens" in costs
        file.write_bytes(kept)
    file.write_bytes(kept[:-1])
    damaged = run_command("chat", "--chat-file", file, stdin=PRICE)
    assert damaged.errors == [f"edge-mllm: cannot use the saved chat '{file}': it is damaged"]
    assert file.read_bytes() == kept[:-1]


def test_system_is_part_of_the_prompt():
    with_system = talk(WORD, "-i", LABEL, "--system", "You are a cashier.")
    count = int(re.search(r"onnx \| (\d+) text", with_system.stderr)[1])
    assert count > 28 + 8 and with_system.stdout.strip() == "Coffee"


def test_model_and_engine():
    assert say("--model", STARTER, "--engine", "gguf", "--threads", 1, "--kv-type", "q8_0").strip() == "Coffee"
    assert talk(WORD, "-m", STARTER, "--engine", "gguf", "-i", LABEL, "--threads", 1).stderr.startswith("gguf | ")
    assert "kv_type 'q8_0' is for the gguf engine" in refused("--engine", "onnx", "--kv-type", "q8_0")
    assert "threads is 100000" in refused("--threads", 100000)
    assert "no model at '/no/such.edge'" in refused("-m", "/no/such.edge")


def test_files_of_a_repository_are_for_names():
    for option in (("--quant", "Q4_0"), ("--layout", "gguf")):
        assert f"{option[0]} chooses among the files of a repository" in refused("-m", STARTER, *option)


def test_n_ctx_holds_the_conversation():
    assert "the context holds 100" in refused("--n-ctx", 100, code=0)


def test_cache_dir_and_low_memory(tmp_path):
    seen = tmp_path / "seen"
    options = ("-i", LABEL, "--cache-dir", seen, "--low-memory")
    first = run_command("chat", *options, stdin=WORD)
    entries = sorted(seen.iterdir())
    for entry in entries:
        os.utime(entry, (1, 1))
    second = run_command("chat", *options, stdin=WORD)
    assert first.stdout == second.stdout == say() + "\n"
    assert len(entries) == 6 and sorted(seen.iterdir()) == entries  # label.png and its five tiles
    assert sum(entry.stat().st_mtime > 1 for entry in entries) == 1  # the picture's was read, and none written again
    held = ("--max-memory", "10MB")  # what is still to be loaded is counted in the refusal
    assert ", decoder " in refused("--low-memory", *held, code=0)
    assert ", decoder " not in refused(*held, code=0)


def test_prompt_weights(exported_starter):
    said = "Read every price and every word in the shop on the corner, and tell a story about the bread and the milk."
    draw = ("-m", exported_starter, "--temperature", 1.5, "--max-new-tokens", 64, "--seed", 1)
    used, unused = (talk(said, *draw, option) for option in ("--prompt-weights", "--no-prompt-weights"))
    assert used.code == unused.code == 0 and used.stdout != unused.stdout
    assert used.stdout == talk(said, *draw).stdout


def test_precision_and_mmproj(exported_starter, published_starter):
    assert say("-m", published_starter, "--precision", "fp32").strip() == "Coffee"
    assert "has no embed_tokens in q8" in refused("-m", published_starter, "--precision", "q8")
    pair = ("-m", STARTER / "decoder.gguf", "--mmproj", exported_starter / "mmproj.gguf")
    assert say(*pair, "--threads", 1).strip() == "Coffee"
    assert "goes with a GGUF file" in refused("--mmproj", exported_starter / "mmproj.gguf")


def test_vision_engine():
    assert say("--vision-engine", "ort") == say()
    if importlib.util.find_spec("openvino") is None:
        assert "pip install 'edge-mllm[openvino]'" in refused("--vision-engine", "openvino")
    else:
        assert say("--vision-engine", "openvino")


def test_provider():
    assert say("--provider", "cpu") == say()
    assert "no provider 'gpu'" in refused("--provider", "gpu")


def test_large_pages_are_usual_on_the_onnx_engine():
    asked, usual, without = (
        talk(WORD, "-i", LABEL, *option).stderr for option in (("--large-pages",), (), ("--no-large-pages",))
    )
    assert "in large pages" in asked and "in large pages" in usual and "in large pages" not in without


def test_max_new_tokens_and_stop():
    cut = talk(WORD, "-i", LABEL, "--max-new-tokens", 3)
    assert ", 3 new | " in cut.stderr
    assert cut.errors[0].endswith(" | cut after 3 tokens; allow more with --max-new-tokens")
    assert say().startswith(cut.stdout.removesuffix("\n"))
    assert say("--stop", "ff", "--stop", "no such text").strip() == "Co"


def test_draws():
    once = say(*HOT, "--seed", 1)
    assert once != say()
    assert say(*HOT, "--seed", 1, "--top-k", 1) == say()
    assert say(*HOT, "--seed", 1, "--top-p", 1e-6, "--min-p", 0.1) == say()
    assert "ff" not in say("--repetition-penalty", 50, "--max-new-tokens", 6)
    assert "top_p is 7.0" in refused("--top-p", 7) and "min_p is 7.0" in refused("--min-p", 7)


def test_tiles_and_visual_tokens():
    low = talk(WORD, "-i", LABEL, "--detail", "low")
    few = talk(f"{WORD}\n/image {SIGN}\n{WORD}", "-i", LABEL, "--max-image-tokens", 40)
    assert (tokens(low), tokens(few)) == ([36], [36, 72])  # the limit is one of a turn's own pictures
    assert "coarser for detail" in low.stderr and "coarser for max_image_tokens" in few.stderr
    reduced = talk(WORD, "-i", LABEL, "--image-reduction", "uniform:1/4")
    assert tokens(reduced) == [45] and "of 180 by uniform:0.25" in reduced.stderr


def test_limits():
    assert say("--max-memory", "4GB", "--max-ttft", 600) == say()
    assert "allows 0 ms" in refused("--max-ttft", 0.00001, code=0)
    assert "a size is a number with a unit" in refused("--max-memory", "much")


def test_json_schema(tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"enum": ["Tea", "Coffee", "Bread"]}))
    done = run_command("chat", "-i", LABEL, "--json-schema", schema, stdin=WORD)
    assert json.loads(done.stdout) in ("Tea", "Coffee", "Bread")
    schema.write_text("{")
    assert "cannot use the JSON schema" in refused("--json-schema", schema, code=0)
    assert "No such file" in refused("--json-schema", tmp_path / "none.json")


def test_prompt_lookup_changes_nothing():
    lines = f"{WORD}\n{WORD}"
    assert say("--prompt-lookup", 4, lines=lines) == say(lines=lines)
    assert "prompt_lookup is 65" in refused("--prompt-lookup", 65)


def test_wrong_usage():
    assert talk("", "--json").code == 2
    assert talk("", WORD).code == 2
