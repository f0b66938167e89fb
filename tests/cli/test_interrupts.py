"""Ctrl-C in every stage of ``run``, and disks that fill: one plain line, and the next use is right."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]

STAGES = {
    "hashes": "edge_mllm.bundle.checked:sha256_of",
    "tokenizer": "edge_mllm.bundle.files:OpenBundle.tokenizer",
    "decoder's load": "edge_mllm.session.open:open_decoder",
    "picture": "edge_mllm.answer.pictures.bundle_picture:load_image",
    "tiling": "edge_mllm.answer.pictures.bundle_picture:cut_tiles",
    "tower's load": "edge_mllm.tower.tower:open_tower",
    "tower": "edge_mllm.tower.tower:VisionTower._run",
    "cache file": "edge_mllm.tower.store:EmbeddingStore._write",
    "prefill": "edge_mllm.answer.decoding.cells:CellCache.prefill",
    "decode": "edge_mllm.answer.decoding.cells:CellCache.step",
}
WRAPPER = """
import functools, importlib, os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background jobs start with it ignored
place, when = sys.argv[1], sys.argv[2]
module, _, path = place.partition(":")
owner = importlib.import_module(module)
*outer, name = path.split(".")
for each in outer:
    owner = getattr(owner, each)
genuine = getattr(owner, name)

@functools.wraps(genuine)
def interrupted(*args, **kwargs):
    if when == "before":
        signal.raise_signal(signal.SIGINT)
    result = genuine(*args, **kwargs)
    signal.raise_signal(signal.SIGINT)
    return result

setattr(owner, name, interrupted)
sys.argv[1:] = sys.argv[3:]
from edge_mllm.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    return path


def python(*args: object, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *map(str, args)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False, **options)


@pytest.fixture(scope="module")
def expected(tiny_bundle, photo) -> str:
    ran = python("-m", "edge_mllm", "run", "-m", tiny_bundle, "-i", photo, "--json", "--max-new-tokens", 4, "Hi")
    return json.loads(ran.stdout)["text"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_in_every_stage(tiny_bundle, photo, expected, tmp_path, stage, when):
    cache = tmp_path / "cache"
    command = ("run", "-m", tiny_bundle, "-i", photo, "--json", "--max-new-tokens", 4, "--cache-dir", cache, "Hi")
    ran = python("-c", WRAPPER, STAGES[stage], when, *command)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "edge-mllm: interrupted\n")
    assert not list(cache.glob(".vision-*"))
    if when == "after":  # once more, with what the interrupted one left in the cache
        ran = python("-m", "edge_mllm", *command)
        document = json.loads(ran.stdout)
        assert document["text"] == expected
        (image,) = document["images"]
        assert image["source"] == ("disk" if stage in ("prefill", "decode") else "tower")
        assert (image["tiles_reused"] > 0) == (stage == "cache file")  # the first file is a tile's


def test_ctrl_c_in_a_streamed_answer(tiny_bundle):
    command = ("run", "-m", tiny_bundle, "--max-new-tokens", 4, "Hi")
    whole = python("-m", "edge_mllm", *command)
    ran = python("-c", WRAPPER, STAGES["decode"], "after", *command)
    assert (ran.returncode, ran.stderr) == (130, "edge-mllm: interrupted\n")
    assert ran.stdout and whole.stdout.startswith(ran.stdout.rstrip("\n"))


def small_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))


def test_a_full_disk_costs_the_cache_and_not_the_answer(tiny_bundle, photo, expected, tmp_path):
    command = ("run", "-m", tiny_bundle, "-i", photo, "--json", "--max-new-tokens", 4, "--cache-dir", tmp_path, "Hi")
    ran = python("-m", "edge_mllm", *command, preexec_fn=small_files)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout)["text"] == expected
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_for_a_saved_chat_is_one_line(tiny_bundle, photo, tmp_path):
    file = tmp_path / "chat.bin"
    command = ("chat", "-m", tiny_bundle, "-i", photo, "--max-new-tokens", 3, "--chat-file", file)
    ran = python("-m", "edge_mllm", *command, input="Hi\n", preexec_fn=small_files)
    assert ran.returncode == 1
    costs, error = ran.stderr.splitlines()
    assert "52 image tokens" in costs
    assert error.startswith("edge-mllm: ")
    assert "File too large" in error
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_at_the_prompt_keeps_the_chat(tiny_bundle, tmp_path):
    file = tmp_path / "chat.bin"
    command = ("chat", "-m", tiny_bundle, "--max-new-tokens", 3, "--chat-file", file)
    reading = "edge_mllm.cli.talk.talk:typed_paths"  # the second line that is read
    ran = python("-c", WRAPPER, reading, "before", *command, input="Hi\n/image x\n")
    assert ran.returncode == 130
    assert ran.stderr.splitlines()[-1] == "edge-mllm: interrupted"
    ran = python("-m", "edge_mllm", *command, input="Why?\n")
    assert (ran.returncode, "reused" in ran.stderr) == (0, True)
