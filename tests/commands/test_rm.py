"""``edge-mllm rm``, end to end: what was fetched by name goes, and can be fetched again."""

from __future__ import annotations

import pytest
from commands.command_line import DEMO

pytestmark = pytest.mark.xdist_group("pull-command")
LABEL, QUESTION, SAYS = DEMO / "label.png", "What does it say?", "Coffee $4.60"


def test_removed_and_fetched_again(shop):
    shop.type("pull", "org/bundle")
    freed = shop.type("rm", "org/bundle")
    assert freed.code == 0 and float(freed.stdout.split()[1]) > 7
    assert "org/bundle" not in {row["name"] for row in shop.type("models", "--json").document}
    assert shop.type("rm", "org/bundle").errors == [
        "edge-mllm: no model at 'org/bundle': nothing was fetched under this name (edge-mllm models lists what was)"
    ]
    shop.server.requests.clear()
    assert shop.type("run", "-m", "org/bundle", "-i", LABEL, QUESTION).stdout.strip() == SAYS
    assert "decoder.onnx.data" in shop.server.fetched()
