"""The catalogue says what the families and shapes say, and what `plan` tells."""

from __future__ import annotations

import pytest

from edge_mllm.costs.devices import named_device
from edge_mllm.costs.estimate import Ask, costs, known_speed
from edge_mllm.hub.catalogue import find_entry
from edge_mllm_export.shapes.catalogue import KNOWN, document, place
from edge_mllm_export.source.facts import facts_of_source


@pytest.fixture(scope="module")
def facts():
    return {name: facts_of_source(f"shape:{name}") for name in KNOWN}


def test_the_file_is_what_make_catalogue_writes(facts):
    assert place().read_text("utf-8") == document(facts), "type: make catalogue"


@pytest.mark.parametrize("device", ["epyc-zen5-2core", "rpi5"])
def test_speed_and_memory_are_those_of_plan(facts, device):
    profile = named_device(device)
    for name in KNOWN:
        entry = find_entry(name.upper())
        cost = next(c for c in costs(facts[name], Ask(width=640, height=480), profile) if c.engine == "gguf")
        assert cost.decoder.default and cost.tower.default
        assert known_speed(entry, profile) == (cost.ttft_s, cost.decode_tps)
        assert (entry.running_bytes, entry.bundle_bytes) == (cost.memory_bytes, cost.disk_bytes)
