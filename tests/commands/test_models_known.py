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
    assert json.dumps(known).count("smolvlm-500m") == 1
    assert shop.server.requests == []
