"""``edge-mllm decide``, end to end: probabilities of given options, for one question, several, and lines of JSON."""

from __future__ import annotations

import base64
import functools
import json
import math
from typing import Any

import pytest
from commands.command_line import DEMO, STARTER, Ended, in_terminal, run_command, run_here

import edge_mllm

pytestmark = pytest.mark.xdist_group("decide-command")
LABEL, SIGN = DEMO / "label.png", DEMO / "sign.png"
SAYS, PRICE = "What does it say?", "What is the price?"
TEXTS, PRICES = ("Coffee $4.60", "TRAM 18"), ("$4.60", "$5.90")
TOKENS = 180


@functools.cache
def decide(*args: object, stdin: str | bytes = "") -> Ended:
    """One run for equal arguments; a process of its own where something is piped in."""
    return run_command("decide", *args, stdin=stdin) if stdin else run_here("decide", *args)


def asked(*args: object) -> list[dict[str, Any]]:
    """What is decided about the label."""
    found: list[dict[str, Any]] = decide("-i", LABEL, "--json", *args).document["decisions"]
    return found


def refused(*args: object) -> str:
    """The one line of a command that fails."""
    done = run_here("decide", *args)
    assert (done.code, done.stdout) == (1, "")
    (line,) = done.errors
    assert line.startswith("edge-mllm: ")
    return line


def lines(done: Ended) -> list[dict[str, Any]]:
    """JSON Lines of standard output."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_table_and_one_line_of_costs():
    done = decide("-i", LABEL, SAYS, "--options", ",".join(TEXTS))
    assert done.code == 0, done.stderr
    header, first, second = done.stdout.splitlines()
    assert header.split() == ["option", "probability", "raw", "log-probability", "per", "token"]
    assert first.startswith("Coffee $4.60 ") and "100.0 %" in first
    assert second.startswith("TRAM 18 ") and " 0.0 %" in second
    (costs,) = done.errors
    assert costs.startswith(f"onnx | 29 text + {TOKENS} image tokens, 2 runs for options | load ")
    assert decide("-q", "-i", LABEL, SAYS, "--options", ",".join(TEXTS)).stderr == ""


def test_json_is_what_the_library_decides():
    (found,) = asked(SAYS, "--options", ",".join(TEXTS))
    assert (found["question"], found["best"], found["calibrated"]) == (SAYS, TEXTS[0], False)
    assert found["usage"] == {
        "prompt_tokens": 209, "image_tokens": TOKENS, "reused_tokens": 0, "option_tokens": 21, "option_runs": 2,
    }  # fmt: skip
    for name in ("probability", "raw_probability"):
        assert math.isclose(sum(option[name] for option in found["options"]), 1)
    for option in found["options"]:
        assert option["mean_logprob"] == pytest.approx(option["logprob"] / option["tokens"])
        assert "empty_logprob" not in option
    times = found["timings"]
    assert times["total_s"] > times["vision_s"] > 0 and times["calibration_s"] == 0
    with edge_mllm.load() as model:
        decision = model.decide(SAYS, TEXTS, LABEL)
    assert [option.logprob for option in decision.options] == [option["logprob"] for option in found["options"]]
    document = decide("-i", LABEL, SAYS, "--options", ",".join(TEXTS), "--json-indent").document
    assert set(document) == {"decisions", "first_s", "ms_a_question_after"} and document["ms_a_question_after"] is None


def test_questions_share_the_picture():
    """The picture is encoded and prefilled for the first question; the others reuse all cells up to its end."""
    both = asked(SAYS, PRICE, "--option", TEXTS[0], "--option", PRICES[0])
    assert [each["best"] for each in both] == [TEXTS[0], PRICES[0]]
    assert [each["images"][0]["source"] for each in both] == ["tower", "kv"]
    assert both[0]["usage"]["reused_tokens"] == 0 and both[1]["usage"]["reused_tokens"] > TOKENS
    (alone,) = asked(PRICE, "--option", TEXTS[0], "--option", PRICES[0])
    assert alone["options"] == both[1]["options"]  # bit for bit
    behind = decide("-i", LABEL, SAYS, PRICE, "--option", TEXTS[0], "--option", PRICES[0])
    assert behind.code == 0 and SAYS in behind.stdout and PRICE in behind.stdout
    assert "no such file" in refused("-i", LABEL, "none.png", PRICE, "--options", ",".join(PRICES))
    done = decide(SAYS, PRICE, "--image", LABEL, "--option", TEXTS[0], "--option", PRICES[0])
    titles = [line for line in done.stdout.splitlines() if line in (SAYS, PRICE)]
    assert titles == [SAYS, PRICE] and done.stderr.rstrip().endswith("ms a question")


def test_calibration_takes_off_what_an_empty_picture_gets():
    plain = asked(PRICE, SAYS, "--options", ",".join(PRICES))
    found = asked(PRICE, SAYS, "--options", ",".join(PRICES), "--calibrate")
    for before, after in zip(plain, found, strict=True):
        assert after["calibrated"] and after["timings"]["calibration_s"] > 0
        gains = [option["logprob"] - option["empty_logprob"] for option in after["options"]]
        assert [option["logprob"] for option in before["options"]] == [o["logprob"] for o in after["options"]]
        share = math.exp(gains[0]) / sum(map(math.exp, gains))
        assert after["options"][0]["raw_probability"] == pytest.approx(share)
    assert found[1]["usage"]["reused_tokens"] > TOKENS  # empty pictures were asked about first, all questions together
    assert "of it calibration" in decide("-i", LABEL, PRICE, "--options", ",".join(PRICES), "--calibrate").stderr


def test_beginnings_take_no_run_for_one_token():
    (whole,) = asked("Is it A?", "--options", "A,B", "--whole")
    (begun,) = asked("Is it A?", "--options", "A,B", "--beginning")
    assert [option["tokens"] for option in whole["options"]] == [option["tokens"] + 1 for option in begun["options"]]
    one_token = all(option["tokens"] == 1 for option in begun["options"])
    assert (begun["usage"]["option_runs"] == 0) == one_token
    assert begun["usage"]["option_tokens"] < whole["usage"]["option_tokens"]
    for long, short in zip(whole["options"], begun["options"], strict=True):
        assert short["logprob"] > long["logprob"]


def test_pictures_are_tiled_as_asked():
    question = (SAYS, "--options", ",".join(TEXTS))
    for option in (("--detail", "low"), ("--max-image-tokens", 40), ("--image-reduction", "diverse:1/4")):
        (found,) = asked(*question, *option)
        assert 0 < found["usage"]["image_tokens"] < TOKENS
    first, second = asked(SAYS, PRICE, "--options", ",".join(PRICES), "--image-reduction", "query:1/4")
    (alone,) = asked(PRICE, "--options", ",".join(PRICES), "--image-reduction", "query:1/4")
    assert second["options"] == alone["options"]  # tokens are chosen for each question anew
    assert first["options"] != second["options"]


def test_the_model_is_loaded_as_by_run(tmp_path, exported_starter):
    question = ("-i", LABEL, SAYS, "--options", ",".join(TEXTS), "--json", "-q")
    plain = decide(*question).document["decisions"][0]
    for option in (
        ("-m", STARTER, "--threads", 1, "--n-ctx", 512, "--low-memory", "--no-large-pages"),
        ("--model", exported_starter, "--no-prompt-weights", "--vision-engine", "ort", "--large-pages"),
        ("-m", STARTER, "--provider", "cpu"),
        ("-m", exported_starter, "--prompt-weights", "--cache-dir", tmp_path / "seen", "--quiet"),
        ("--engine", "gguf", "--kv-type", "f32"),
        ("-m", STARTER / "decoder.gguf", "--mmproj", exported_starter / "mmproj.gguf"),
    ):
        (found,) = decide(*question, *option).document["decisions"]
        assert found["best"] == TEXTS[0]
        assert found["options"][0]["logprob"] == pytest.approx(plain["options"][0]["logprob"], abs=0.5)
    system = decide(*question, "--system", "Answer in French.").document["decisions"][0]
    assert system["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"]


def test_a_published_directory_and_a_name_of_the_hub(shop, published_starter):
    question = ("-i", LABEL, SAYS, "--options", ",".join(TEXTS), "-q")
    done = decide("-m", published_starter, "--precision", "decoder_model_merged=q4", *question)
    assert done.code == 0 and done.stdout.splitlines()[1].startswith("Coffee $4.60 ")
    named = shop.type("decide", "-m", "org/gguf", "--layout", "gguf", "--quant", "Q4_0", *question, "--json")
    assert named.document["decisions"][0]["best"] == TEXTS[0]


def test_lines_of_json_come_in_and_go_out(tmp_path):
    rows: list[Any] = [
        {"id": "door", "image": str(LABEL), "prompt": SAYS, "options": TEXTS},
        {"id": 7, "images": [str(LABEL)], "prompt": PRICE, "options": PRICES},
        {"prompt": SAYS, "image": "data:image/png;base64," + base64.b64encode(SIGN.read_bytes()).decode()},
        {"prompt": SAYS, "options": ["no", "no"]},
        {"prompt": SAYS, "image": "away.png"},
        ["no object"],
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\ufeff" + "\n\n".join(map(json.dumps, rows)) + "\n{torn", encoding="utf-8")
    for calibrate in ((), ("--calibrate",)):
        done = decide("--questions", file, "--options", ",".join(TEXTS), "-i", SIGN, *calibrate)
        found = lines(done)
        assert [each["id"] for each in found] == ["door", "7", "3", "4", "5", "6", "7"]
        assert [each.get("best") for each in found] == [TEXTS[0], PRICES[0], TEXTS[1], None, None, None, None]
        assert found[1]["usage"]["reused_tokens"] > TOKENS and found[2]["images"][0]["width"] == 800
        reasons = ("'no' is given twice", f"{tmp_path / 'away.png'}': no such file", "not an object", "is not JSON")
        assert all(reason in each["error"] for reason, each in zip(reasons, found[3:], strict=True))
        assert done.code == 1 and done.errors == ["edge-mllm: 4 of 7 rows could not be decided; their lines say why"]


def test_one_question_about_pictures_from_standard_input():
    text = "\n".join(json.dumps({"id": path.stem, "image": str(path)}) for path in (LABEL, SIGN))
    done = decide(SAYS, "--questions", "-", "--options", ",".join(TEXTS), stdin=text)
    assert done.code == 0, done.stderr
    assert {each["id"]: each["best"] for each in lines(done)} == {"label": TEXTS[0], "sign": TEXTS[1]}
    (costs,) = done.errors
    assert "then" in costs and costs.endswith("ms a question")
    piped = decide("-i", "-", SAYS, "--options", ",".join(TEXTS), "--json", stdin=LABEL.read_bytes())
    assert piped.document["decisions"][0]["best"] == TEXTS[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "there is no question"),
        ((SAYS,), "needs two options or more, 0 given"),
        ((SAYS, "--options", "yes"), "needs two options or more, 1 given"),
        ((SAYS, "--options", "yes, yes"), "the option 'yes' is given twice"),
        ((SAYS, "--options", "yes,,no"), "an option is empty"),
        ((SAYS, "--options", "no,yes<end_of_utterance>"), "ends the answer for this model"),
        ((SAYS, "--options", "no,no one", "--beginning"), "the beginning of 'no one'; score whole answers (--whole)"),
        ((SAYS, "--options", "no,yes", "--calibrate"), "leave --calibrate out"),
        ((SAYS, "--options", "no," + "yes " * 99, "--n-ctx", 200), "but the context holds 200"),
        ((SAYS, "-i", "away.png", "--options", "a,b"), "cannot use picture 'away.png': no such file"),
        (("a", "b", "--questions", "x"), "one question may be typed"),
        (("--questions", "x", "--json"), "writes JSON Lines by itself"),
        (("--questions", "away.jsonl"), "cannot read the task 'away.jsonl'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(arguments, said):
    assert said in refused(*arguments)


def test_an_option_that_begins_another_is_told_apart_by_its_end():
    (found,) = asked("Is somebody there?", "--options", "no,no one")
    short, long = found["options"]
    assert short["tokens"] < long["tokens"] and 0 < short["probability"] < 1


def test_a_narrow_terminal_keeps_options_whole():
    code, shown = in_terminal("decide", "-i", LABEL, SAYS, "--options", ",".join(TEXTS), columns=30)
    assert code == 0 and "Coffee $4.60" in shown


def test_an_empty_file_of_questions_is_a_failure(tmp_path):
    (tmp_path / "none.jsonl").write_text("\n")
    assert "0 of 0 rows" in refused("--questions", tmp_path / "none.jsonl")
