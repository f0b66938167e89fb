"""Sets of configuration files without weights: written, and planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_mllm.costs.facts import ModelFacts
from edge_mllm.errors import EdgeMLLMError
from edge_mllm_export.json_files import write_json
from edge_mllm_export.source.facts import facts_of_source
from edge_mllm_export.source.source import resolve_source

Files = dict[str, dict[str, Any]]
"""Name of a JSON file without its ending -> what is in it."""


def write_set(directory: Path, files: Files) -> Path:
    """Write a set; return its directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, document in files.items():
        write_json(directory / f"{name}.json", document)
    return directory


def planned(directory: Path, files: Files, expected: tuple[int, int, int, int]) -> ModelFacts:
    """What ``plan`` reads of a set, whose layers, width, context and visual tokens of a tile are as expected."""
    facts = facts_of_source(str(write_set(directory, files)))
    assert facts.shape is not None
    decoder = facts.shape.decoder
    found = (decoder.n_layer, decoder.n_embd, facts.context_length, facts.vision.tokens_per_tile)
    assert found == expected
    return facts


def check_refused(directory: Path, says: str) -> None:
    """``plan`` and ``export`` refuse a directory in the same sentence, which ``says`` is found in."""
    for open_it in (facts_of_source, lambda name: resolve_source(name, directory.parent)):
        with pytest.raises(EdgeMLLMError, match=says) as caught:
            open_it(str(directory))
        assert "\n" not in str(caught.value)
