"""One server for each module of tests, and the starter model to compare its answers with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serve.server_process import Served, serving

import edge_mllm


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """With the settings that a user gets."""
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def model() -> Iterator[edge_mllm.Model]:
    """The same model in this process."""
    with edge_mllm.load() as loaded:
        yield loaded
