"""``edge-mllm chat -m org/name``, end to end."""

from __future__ import annotations

import pytest
from commands.command_line import DEMO

pytestmark = pytest.mark.xdist_group("pull-command")
LABEL, QUESTION = DEMO / "label.png", "What does it say?"


def test_a_talk_with_a_model_by_name(shop):
    for options in ("--layout bundle", "--layout gguf --quant Q4_0"):
        name = "org/bundle" if "bundle" in options else "org/gguf"
        done = shop.type("chat", "-m", name, *options.split(), "-i", LABEL, stdin=f"{QUESTION}\nWhat is the price?\n")
        assert done.code == 0 and done.stdout.splitlines()[0].strip() == "Coffee $4.60", done.stderr
