"""The 200-size sweep (make parity) and a check of its committed result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from image_settings import SETTINGS, Settings
from parity_pixels import COUNT, RESULT, report, sweep, write


@pytest.mark.parity
def test_two_hundred_sizes_equal_the_reference(tiny_smolvlm: Path) -> None:
    result = report(tiny_smolvlm)
    write(result)
    for entry in result["results"]:
        unequal = [row for row in entry["rows"] if not (row["pixels_equal"] and row["ids_equal"])]
        assert not unequal, entry["settings"]["name"]
        assert entry["sizes"] == COUNT


def test_the_committed_result_is_whole() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert [entry["settings"]["name"] for entry in result["results"]] == [settings.name for settings in SETTINGS]
    for entry in result["results"]:
        assert entry["pixels_equal"] == entry["ids_equal"] == entry["sizes"] == len(entry["rows"]) == COUNT
        assert entry["max_abs_difference"] == 0


def test_the_sweep_sees_a_difference(tiny_smolvlm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One wrong level of one channel in the normalisation must be counted."""
    from edge_mllm.picture import tiling

    right = tiling.normalisation_table

    def wrong(image):
        table = right(image)
        table[1, 200] += 1e-6
        return table

    tiny = Settings("tiny", 128, 32, 4)
    assert sweep(tiny, tiny_smolvlm, count=4)["pixels_equal"] == 4
    monkeypatch.setattr(tiling, "normalisation_table", wrong)
    found = sweep(tiny, tiny_smolvlm, count=4)
    assert found["pixels_equal"] < 4
    assert found["ids_equal"] == 4
