"""From a model's name to an answer, end to end: ``-m org/name``, ``edge-mllm pull``, ``rm`` and ``models``.

The hub is a server on this machine; the repositories hold the starter in each layout that others publish.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands.command_line import DEMO, ROOT, STARTER
from commands.hub_shop import Shop
from hub_server import COMMIT, Repository

pytestmark = pytest.mark.xdist_group("pull-command")
LABEL, QUESTION, SAYS = DEMO / "label.png", "What does it say?", "Coffee $4.60"


NEEDED = {
    "bundle": {file.name for file in STARTER.iterdir()},
    "gguf": {"tiny-Q4_0.gguf", "mmproj-tiny-f16.gguf"},
    "onnx": None,
}


@pytest.mark.parametrize("name", NEEDED)
def test_a_name_is_answered_and_then_without_the_hub(shop, name):
    first = shop.type("run", "-m", f"org/{name}", "-i", LABEL, QUESTION)
    assert (first.code, first.stdout.strip()) == (0, SAYS), first.stderr
    fetched = shop.server.fetched()
    assert len(fetched) == len(set(fetched))  # each once
    if NEEDED[name] is not None:
        assert set(fetched) == NEEDED[name]
    assert not {"model.safetensors", "tiny-F16.gguf"} & set(fetched)
    shop.server.requests.clear()
    again = shop.type("run", "-m", f"org/{name}", "-i", LABEL, QUESTION)
    assert again.stdout == first.stdout
    assert shop.server.requests == []  # no call at all


def test_commands_take_the_name(shop):
    pulled = shop.type("pull", "org/bundle", "--json").document
    assert pulled["layout"] == "bundle" and pulled["commit"] == COMMIT and pulled["bytes"] > 7e6
    assert shop.type("pull", "hf:org/bundle@v1", "--json-indent").document["commit"] == COMMIT
    shop.server.requests.clear()
    assert shop.type("inspect", "org/bundle", "--json").document["name"] == "starter"
    chat = shop.type("run", "-m", "hf:org/bundle@v1", "-i", LABEL, QUESTION, "--json").document
    assert chat["text"].strip() == SAYS
    listed = shop.type("models", "--json").document
    assert {"org/bundle", "hf:org/bundle@v1"} <= {row["name"] for row in listed}
    assert shop.server.requests == []


def test_what_of_a_repository_can_be_chosen(shop):
    assert shop.type("pull", "org/gguf", "--quant", "Q4_0").code == 0
    refused = shop.type("pull", "org/gguf", "--quant", "Q8_0")
    assert refused.code == 1 and "no GGUF file in Q8_0; it holds" in refused.stderr
    assert shop.type("pull", "org/onnx", "--layout", "onnx", "--precision", "decoder_model_merged=fp32").code == 0
    refused = shop.type("pull", "org/onnx", "--layout", "bundle")
    assert refused.code == 1 and "it holds no bundle (bundle.json)" in refused.stderr
    assert shop.type("run", "-m", STARTER, "--quant", "Q4_0", "x").errors == [
        f"edge-mllm: --quant chooses among the files of a repository, and '{STARTER}' is a path"
    ]
    assert shop.type("run", "-m", STARTER, "--layout", "gguf", "x").code == 1


def test_a_licence_is_told_once(shop):
    shop.server.repositories["org/bundle"].licence = "apache-2.0"
    first = shop.type("pull", "org/bundle")
    assert "org/bundle: licence apache-2.0" in first.stderr and "bundle, " in first.stdout
    assert shop.type("pull", "org/bundle").stderr == ""


def test_an_interrupted_download_goes_on(shop):
    shop.server.repositories["org/gguf"].cut["tiny-Q4_0.gguf"] = 1_500_000
    assert shop.type("run", "-m", "org/gguf", "-i", LABEL, QUESTION).stdout.strip() == SAYS
    fetched = shop.server.fetched()  # with a Range header as far as huggingface_hub kept what it had (tests/export)
    assert fetched.count("tiny-Q4_0.gguf") == 2 and fetched.count("mmproj-tiny-f16.gguf") == 1


def test_refusals_are_one_line(shop):
    said = {
        "org/nothing": "it holds nothing that can be run; it holds weights.bin",
        "org/checkpoint": "it is a checkpoint; type: edge-mllm export org/checkpoint -o checkpoint.edge",
        "org/absent": "no such model on the hub",
        "org/bundle@v9": "has no such revision",
        "pathless": "no name of the catalogue (edge-mllm models --known)",
    }
    for name, words in said.items():
        done = shop.type("run", "-m", name, "-i", LABEL, QUESTION)
        assert done.code == 1 and len(done.errors) == 1 and words in done.errors[0], done.stderr
    shop.server.repositories["org/bundle"].gated = True
    done = shop.type("run", "-m", "org/bundle", "-i", LABEL, QUESTION)
    assert done.code == 1 and "the model is gated; accept its terms" in done.stderr and len(done.errors) == 1
    shop.server.repositories["org/gguf"].sizes["tiny-Q4_0.gguf"] = 10**15
    done = shop.type("run", "-m", "org/gguf", QUESTION)
    assert done.code == 1 and "free; make room, or set HF_HOME to another disk" in done.stderr
    assert shop.type("pull", STARTER).code == 1


def test_without_a_network(shelf, tmp_path):
    gone = Shop(shelf, tmp_path)
    with gone.server:
        assert gone.type("pull", "org/bundle").code == 0
    assert gone.type("run", "-m", "org/bundle", "-i", LABEL, QUESTION).stdout.strip() == SAYS
    again = gone.type("pull", "org/bundle")  # asks, hears nothing, and says so
    assert again.code == 0 and "the hub cannot be reached; using what was fetched before" in again.stderr
    missing = gone.type("run", "-m", "org/gguf", QUESTION, HF_HUB_OFFLINE="1")
    assert missing.code == 1 and "HF_HUB_OFFLINE forbids asking the hub" in missing.stderr


@pytest.mark.slow
def test_a_checkpoint_is_exported_and_its_name_runs(shop):
    shop.server.repositories["org/tiny"] = Repository(ROOT / "starter" / "checkpoint")
    assert "or pull it with --export" in shop.type("pull", "org/tiny").stderr
    done = shop.type("pull", "org/tiny", "--export", "--json")
    assert done.code == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["layout"], made["source"]) == ("bundle", "org/tiny") and Path(made["path"]).suffix == ".edge"
    shop.server.repositories.clear()  # the name asks nobody any more
    assert shop.type("run", "-m", "org/tiny", "-i", LABEL, QUESTION).stdout.strip() == SAYS
    assert any(row["name"] == "org/tiny" for row in json.loads(shop.type("models", "--json").stdout))
    assert shop.type("rm", "org/tiny").code == 0 and not Path(made["path"]).exists()


def test_an_export_that_fails_leaves_its_line_and_no_name(shop):
    done = shop.type("pull", "org/checkpoint", "--export")
    assert done.code == 1 and "is not supported" in done.stderr and "Traceback" not in done.stderr
    assert shop.type("run", "-m", "org/checkpoint", QUESTION).code == 1
