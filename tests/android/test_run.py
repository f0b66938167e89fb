"""Answers of the phone's code: token for token those of the Python runtime with the same ONNX Runtime."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from android.conftest import ORT, ROOT, Core
from android.families import exported
from image_settings import picture
from PIL import Image

STARTER = ROOT / "edge_mllm" / "starter.edge"
_HELD_OUT = ROOT / "starter" / "heldout"
_TIMES = ("load_s", "preprocess_s", "vision_s", "prefill_s", "ttft_s", "decode_s", "prefill_tps", "decode_tps")


def _reference(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the Python runtime answers with core's version of ONNX Runtime."""
    package = ORT / "python"
    if not package.is_dir():
        pytest.skip("the Python package of core's ONNX Runtime is not here; type: android_demo/build/fetch.sh")
    path = os.pathsep.join([str(package), str(ROOT), str(ROOT / "export"), str(ROOT / "quant")])
    script = Path(__file__).with_name("reference.py")
    done = subprocess.run(
        [sys.executable, script], input=json.dumps(asked), env={**os.environ, "PYTHONPATH": path}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["onnxruntime"] == "1.26.0"
    answers: list[dict[str, Any]] = found["answers"]
    return answers


def _compare(core: Core, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every answer, how it was cut into pieces, all counts, and the bits of all embeddings."""
    found = []
    for question, expected in zip(asked, _reference(asked), strict=True):
        reply = core.ask("run", **question)
        assert "error" not in reply, reply
        for image in reply["images"] + expected["images"]:
            del image["source"], image["tiles_reused"]  # another cache
        for name in ("text", "pieces", "finish_reason", "usage", "images", "model", "engine"):
            assert reply[name] == expected[name], (name, question)
        assert set(reply["timings"]) == set(expected["timings"])
        for image, digest in zip(question["images"], expected["embeddings"], strict=True):
            rows = core.ask("embeddings", bundle=question["bundle"], images=[image])
            assert rows.get("sha256") == digest, (image, rows)
        found.append(reply)
    return found


def _questions(count: int | None) -> list[dict[str, Any]]:
    """Of the starter's held-out pages, each with one."""
    entries = json.loads((_HELD_OUT / "questions.json").read_text("utf-8"))
    chosen = entries if count is None else entries[:: max(1, len(entries) // count)]
    return [
        {"bundle": str(STARTER), "images": [str(_HELD_OUT / each["image"])], "prompt": each["question"]}
        for each in chosen
    ]


def test_answers_of_the_starter(core: Core) -> None:
    """Also without a picture, with several, with a system message, and cut short."""
    pages = [str(_HELD_OUT / f"{number:03}.png") for number in range(3)]
    plain: dict[str, Any] = {"bundle": str(STARTER), "images": []}
    more = [
        {**plain, "prompt": "Hello"},
        {**plain, "images": pages[:2], "prompt": "What do they say?", "max_new_tokens": 40},
        {**plain, "images": pages, "prompt": "What do they say?", "max_new_tokens": 5},
        {**plain, "images": pages[:1], "prompt": "What does it say?", "system": "Be short."},
        {**plain, "images": pages[:1], "prompt": "What does it say?", "detail": "low"},
        {**plain, "images": pages[:1], "prompt": "What does it say?", "max_image_tokens": 80},
        {**plain, "images": pages[:1], "prompt": "What does it say?", "stop": ["e", "o "]},
    ]
    found = _compare(core, _questions(24) + more)
    assert len(found) >= 31 and len({reply["text"] for reply in found}) > 15


@pytest.mark.slow
def test_answers_to_all_held_out_questions(core: Core, tmp_path: Path) -> None:
    """All questions about the 60 pages, then one about each page at three other sizes: 240 pictures."""
    asked = _questions(None)
    for entry in {each["images"][0]: each for each in asked}.values():
        with Image.open(entry["images"][0]) as page:
            for factor in (0.6, 1.3, 2.1):
                file = tmp_path / f"{factor}-{Path(entry['images'][0]).name}"
                page.convert("RGB").resize([round(side * factor) for side in page.size]).save(file)
                asked.append(entry | {"images": [str(file)]})
    found = _compare(core, asked)
    assert len({question["images"][0] for question in asked}) == 240 and len(found) == len(asked)


def test_drawn_answers(core: Core) -> None:
    """The same seed draws the same tokens: NumPy's generator, and filters in the same order."""
    page = str(_HELD_OUT / "001.png")
    asked: list[dict[str, Any]] = []
    settings: list[dict[str, Any]] = [
        {"temperature": 1.5},
        {"temperature": 2.0, "top_k": 40},
        {"temperature": 2.0, "top_p": 0.8},
        {"temperature": 3.0, "min_p": 0.02, "repetition_penalty": 1.3},
        {"temperature": 1.0, "top_k": 5, "top_p": 0.9, "min_p": 0.1},
        {"repetition_penalty": 1.5},
    ]
    for number, sampling in enumerate(settings):
        for seed in (number, 12345678901 + number):
            question = {"bundle": str(STARTER), "images": [page], "prompt": "What does it say?", "max_new_tokens": 30}
            asked.append(question | sampling | {"seed": seed})
    assert len({reply["text"] for reply in _compare(core, asked)}) > 6


@pytest.mark.parametrize(
    "family",
    [
        "qwen2_5_vl",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("internvl", "llava_onevision", "qwen3_vl")),
    ],
)
def test_answers_of_other_families(core: Core, family: str, tmp_path: Path) -> None:
    """Tiny checkpoints: pictures of many shapes, and two in one question."""
    bundle = exported(family, tmp_path)
    files = []
    for number, size in enumerate([(300, 200), (90, 260), (64, 64), (333, 97)]):
        files.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(picture(*size, seed=number)).save(files[-1])
    asked: list[dict[str, Any]] = [
        {"bundle": str(bundle), "images": [file], "prompt": "What is this? Ünï🙂", "max_new_tokens": 12}
        for file in files
    ]
    asked.append({"bundle": str(bundle), "images": files[:2], "prompt": " Two?\n", "max_new_tokens": 8})
    asked.append({"bundle": str(bundle), "images": [], "prompt": "Hello", "max_new_tokens": 8})
    _compare(core, asked)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["internvl", "qwen2_vl", "llava"])
def test_twenty_questions_to_other_families(core: Core, family: str, tmp_path: Path) -> None:
    """An aspect grid, any resolution with M-RoPE, a single tile: every question about another picture, greedily."""
    bundle, rng = exported(family, tmp_path), random.Random(family)
    asked: list[dict[str, Any]] = []
    for number in range(20):
        file = tmp_path / f"{number}.png"
        size = rng.randint(40, 500), rng.randint(40, 500)
        Image.fromarray(picture(*size, seed=number)).save(file)
        prompt = f"What is {rng.choice(('this', 'on the left', 'written here', '日本語', 'it worth'))} ({number})?"
        asked.append({"bundle": str(bundle), "images": [str(file)], "prompt": prompt, "max_new_tokens": 24})
    found = _compare(core, asked)
    assert len({(reply["images"][0]["tiles"], reply["usage"]["image_tokens"]) for reply in found}) > (family != "llava")
    assert len({reply["text"] for reply in found}) > 10


def test_bundles_that_do_not_run_are_refused(core: Core, tmp_path: Path) -> None:
    """By a gap that the export found, without an ONNX decoder or turns, with a file that changed: one line each."""
    document = json.loads((STARTER / "bundle.json").read_text("utf-8"))

    def refused(change: Any, named: str) -> None:
        folder = tmp_path / named.replace(" ", "-").replace("/", "-")
        shutil.copytree(STARTER, folder)
        changed = json.loads(json.dumps(document))
        change(changed, folder)
        (folder / "bundle.json").write_text(json.dumps(changed), "utf-8")
        error = core.ask("run", bundle=str(folder), images=[], prompt="x").get("error", "")
        assert named in error and "\n" not in error, (named, error)

    def gap(changed: Any, _: Path) -> None:
        changed["recipe"]["decoder_onnx"]["phone_gaps"] = ["GroupQueryAttention with causal"]

    def no_decoder(changed: Any, _: Path) -> None:
        del changed["parts"]["decoder_onnx"]

    def no_turns(changed: Any, _: Path) -> None:
        del changed["prompt"]["turns"]

    def flipped(_: Any, folder: Path) -> None:
        data = bytearray((folder / "vision.onnx").read_bytes())
        data[len(data) // 2] ^= 1
        (folder / "vision.onnx").write_bytes(data)

    def outside(changed: Any, _: Path) -> None:
        changed["parts"]["vision"]["file"] = "../vision.onnx"

    def other_tokenizer(changed: Any, _: Path) -> None:
        changed["prompt"]["image_token_id"] = 5

    refused(gap, "ONNX Runtime lacks [GroupQueryAttention with causal] there")
    refused(no_decoder, "it has no ONNX decoder, which the phone runs")
    refused(no_turns, "the bundle has no turns of its chat template")
    refused(flipped, "the file 'vision.onnx' has changed (its SHA-256 is another one)")
    refused(outside, "the path of part 'vision' leaves the bundle: '../vision.onnx'")
    refused(other_tokenizer, "'<image>' is token 356 in the tokenizer but 5 in bundle.json")
    refused(lambda changed, _: changed.update(schema_version=2), "schema_version is 2, this release reads 1")
    refused(lambda changed, _: changed["image"].update(shine=1), "bundle.json, image.shine: unknown field")


def test_low_memory_and_reused_cells_change_nothing(core: Core) -> None:
    """Tower and decoder in turn give the same answer; a second question computes the text alone."""
    question: dict[str, Any] = {"bundle": str(STARTER), "images": [str(_HELD_OUT / "002.png")]}
    first = core.ask("run", **question, prompt="What does it say?")
    low = core.ask("run", **question, prompt="What does it say?", low_memory=True)
    again = core.ask("run", **question, prompt="What does it say?")
    assert first["text"] == low["text"] == again["text"] and first["text"]
    assert [reply["images"][0]["source"] for reply in (low, again)] == ["tower", "kv"]
    assert again["timings"]["vision_s"] == 0 < low["timings"]["vision_s"]


def test_a_plan_that_does_not_fit_is_refused(core: Core) -> None:
    question: dict[str, Any] = {"bundle": str(STARTER), "images": [str(_HELD_OUT / "002.png")], "prompt": "x"}
    error = core.ask("run", **question, max_memory=50_000_000)["error"]
    assert "of memory" in error and "max_memory allows 50 MB" in error
    images = [str(_HELD_OUT / "003.png")] * 12
    error = core.ask("run", bundle=str(STARTER), images=images, prompt="x")["error"]
    assert "but the context holds 2048" in error


def test_the_command_prints_what_edge_mllm_prints(core_script: Path, tmp_path: Path) -> None:
    """The same keys in the same order; files of pixels and ids that NumPy reads; one line where it fails."""
    import numpy as np

    import edge_mllm

    page, prompt = _HELD_OUT / "000.png", "What does it say?"
    done = subprocess.run([core_script, "run", "-i", page, prompt], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    printed = json.loads(done.stdout)
    with edge_mllm.load(engine="onnx") as model:
        expected = model.generate(prompt, [page]).to_dict()
        pixels, ids = model.preprocess(page).pixels, model.prompt_ids(prompt, [page])
    assert list(printed) == list(expected)
    assert list(printed["timings"]) == list(expected["timings"])
    assert printed["text"] == expected["text"]
    assert all(printed["timings"][name] > 0 for name in _TIMES)
    parts = sum(printed["timings"][name] for name in ("preprocess_s", "vision_s", "prefill_s"))
    assert parts <= printed["timings"]["ttft_s"]
    for command, array in (("pixels", pixels), ("ids", ids)):
        out = tmp_path / f"{command}.npy"
        more = [prompt] if command == "ids" else []
        subprocess.run([core_script, command, "-i", page, "-o", out, *more], check=True, capture_output=True)
        found = np.load(out)
        assert found.dtype == array.dtype and np.array_equal(found, array)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "-i", "none.png", "x"], 1, "cannot use picture 'none.png': no such file"),
        (["run", "-m", "none.edge", "x"], 1, "bad bundle 'none.edge': there is no bundle.json"),
        (["run", "--temperature", "-1", "x"], 1, "temperature is -1.0; it must be at least 0"),
        (["run", "the <image> token"], 1, "the text contains '<image>'"),
        (["run"], 2, "one PROMPT is expected, 0 were given"),
        (["run", "--nothing", "x"], 2, "there is no option --nothing"),
        (["fly", "x"], 2, "there is no command fly"),
    ],
)
def test_the_command_fails_with_one_line(core_script: Path, arguments: list[str], code: int, said: str) -> None:
    done = subprocess.run([core_script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code and said in done.stderr and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == code and "Exception" not in done.stderr
