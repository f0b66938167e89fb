"""``edge-mllm models --known``, end to end: the catalogue."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.xdist_group("pull-command")


def test_known_models(shop):
    shown = shop.type("models", "--known")
    known = shop.type("models", "--known", "--json").document
    assert shown.code == 0 and all(row["name"] in shown.stdout for row in known)
    assert [row["parameters"] for row in known] == sorted(row["parameters"] for row in known)
    assert all(isinstance(row["fits"], bool) and row["running_bytes"] > row["bundle_bytes"] for row in known)
    assert json.dumps(known).count('"smolvlm-500m"') == 1
    assert all(row["ttft_s"] > 0 and row["decode_tps"] > 0 for row in known)
    small, large = (next(row for row in known if row["name"] == name) for name in ("smolvlm-256m", "qwen2.5-vl-3b"))
    assert small["decode_tps"] > 2 * large["decode_tps"] and small["running_bytes"] < large["running_bytes"]
    assert shop.server.requests == []
