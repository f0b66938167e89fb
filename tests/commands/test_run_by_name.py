"""``edge-mllm run -m org/name``, end to end: what of a repository is run."""

from __future__ import annotations

import pytest
from commands.command_line import DEMO

pytestmark = pytest.mark.xdist_group("pull-command")
LABEL, QUESTION, SAYS = DEMO / "label.png", "What does it say?", "Coffee $4.60"


@pytest.mark.parametrize("options", ["--layout onnx", "--quant Q4_0", "--layout gguf --quant q4_0"])
def test_what_is_run_can_be_chosen(shop, options):
    name = "org/onnx" if "onnx" in options else "org/gguf"
    done = shop.type("run", "-m", name, *options.split(), "-i", LABEL, QUESTION)
    assert (done.code, done.stdout.strip()) == (0, SAYS), done.stderr


def test_what_is_not_there_is_refused(shop):
    done = shop.type("run", "-m", "org/onnx", "--layout", "gguf", QUESTION)
    assert done.code == 1 and "it holds no GGUF file with its mmproj" in done.stderr
    done = shop.type("run", "-m", "org/gguf", "--quant", "Q8_0", QUESTION)
    assert done.code == 1 and "no GGUF file in Q8_0" in done.stderr
