"""``edge-mllm push``: a card to read, an upload to a hub on this machine, and every way to be refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from commands.command_line import STARTER, Ended, run_command
from hub_server import TOKEN, HubServer, Repository


@pytest.fixture
def hub(tmp_path):
    (tmp_path / "remote").mkdir()
    with HubServer(mine=Repository(tmp_path / "remote", writable=True), theirs=Repository(tmp_path)) as server:
        yield server


def push(hub, home: Path, *args: object, **more: str) -> Ended:
    places = {"HF_HOME": str(home / "hf"), "HF_HUB_CACHE": str(home / "hf" / "hub"), "EDGE_MLLM_CACHE": str(home / "c")}
    environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    return run_command("push", *args, env=environment | places | more)


def front_matter(card: str) -> dict[str, object]:
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.S)[1])


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("bench") / "bench.json"
    case = ("--image-size", "96x96", "--answer-tokens", "4", "--repeat", "1", "--warmup", "0", "--loads", "1")
    done = run_command("bench", "--out", out, *case)
    assert done.code == 0, done.stderr
    return out


def test_the_card_says_what_the_bundle_says(bench):
    done = run_command("push", STARTER, "org/name", "--dry-run", "--bench", bench)
    assert (done.code, done.stderr) == (0, "")
    spec = json.loads((STARTER / "bundle.json").read_text())
    head = front_matter(done.stdout)
    assert head["license"] == spec["source"]["licence"] == "apache-2.0"
    assert head["pipeline_tag"] == "image-text-to-text" and {"onnx", "gguf"} <= set(head["tags"])
    assert "base_model" not in head  # the starter's source is a directory
    ids = spec["verification"]["token_ids"]
    assert f"| token ids |  | {ids['equal']} of {ids['prompts']} prompts equal |" in done.stdout
    assert "edge-mllm run -m org/name -i photo.jpg" in done.stdout and "| 640x480 | 5 | 180 |" in done.stdout
    assert spec["source"]["sha256"] in done.stdout and "int4_b32, 4.53 bits per weight" in done.stdout
    assert "## What it costs" in done.stdout and "| decode tokens/s |" in done.stdout


def test_what_a_bundle_says_is_text_on_the_card(tmp_path):
    bundle = Path(shutil.copytree(STARTER, tmp_path / "b.edge"))
    spec = json.loads((bundle / "bundle.json").read_text())
    spec["source"] |= {
        "id": "org/base",
        "licence": "Mine\n---\n<script>1</script> | x",
        "revision": "main",
    }
    spec["verification"] = {}
    (bundle / "bundle.json").write_text(json.dumps(spec))
    done = run_command("push", bundle, "org/name", "--dry-run")
    head = front_matter(done.stdout)
    assert done.code == 0 and "<script>" not in done.stdout.split("\n---\n", 1)[1]
    assert (head["license"], head["base_model"], head["base_model_relation"]) == ("other", "org/base", "quantized")
    assert head["license_name"] == spec["source"]["licence"]
    assert "exported without verification" in done.stdout


def test_a_bundle_that_was_pushed_answers_by_its_name(hub, tmp_path):
    done = push(hub, tmp_path, STARTER, "org/mine", "--private", "--message", "First", "--json-indent")
    assert done.code == 0 and len(done.stdout.splitlines()) > 3, done.stderr
    told = json.loads(done.stdout)
    assert json.loads(push(hub, tmp_path, STARTER, "org/mine@main", "--json").stdout) == told
    assert told["commit"].startswith(hub.url) and "README.md" in told["files"]
    for file in STARTER.iterdir():
        assert (tmp_path / "remote" / file.name).read_bytes() == file.read_bytes()
    assert front_matter((tmp_path / "remote" / "README.md").read_text())["library_name"] == "edge-mllm"
    home = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "other")}
    places = {"HF_HUB_CACHE": str(tmp_path / "other" / "hub"), "EDGE_MLLM_CACHE": str(tmp_path / "other" / "cache")}
    answered = run_command("run", "-m", "org/mine", "Hi", "--max-new-tokens", "2", env=home | places)
    assert answered.code == 0 and answered.stdout.strip()


@pytest.mark.parametrize(
    ("repo", "more", "words"),
    [
        ("org/mine", {"HF_TOKEN": "hf_wrong"}, "the hub does not know the token; log in again"),
        ("org/mine", {"HF_TOKEN": ""}, "nobody is logged in; log in with 'hf auth login'"),
        ("org/theirs", {}, "the token may not write there"),
        ("org/nowhere", {}, "the token may not write there"),
        ("mine", {}, "'mine' is no name of a repository"),
        ("org/mine", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE forbids asking the hub"),
        ("org/mine", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub cannot be reached"),
    ],
)
def test_refusals_are_one_line_and_nothing_is_written(hub, tmp_path, repo, more, words):
    done = push(hub, tmp_path, STARTER, repo, **more)
    assert (done.code, done.stdout) == (1, "") and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("edge-mllm: ") and words in done.stderr
    assert list((tmp_path / "remote").iterdir()) == []


def test_a_damaged_bundle_is_not_pushed(hub, tmp_path):
    bundle = Path(shutil.copytree(STARTER, tmp_path / "b.edge"))
    (bundle / "vision.onnx").write_bytes(b"x")
    done = push(hub, tmp_path, bundle, "org/mine")
    assert done.code == 1 and "vision.onnx" in done.stderr and not hub.requests
