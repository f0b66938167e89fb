"""Random settings of every family's image processor: the reference's pixels and ids, or a refusal by file and field."""

from __future__ import annotations

import pytest
from processor_settings import FAMILIES, MANY, Settings, sweep

FEW = 20


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(request.param, tmp_path_factory.mktemp("settings"))


def test_few_random_settings_are_the_references_or_are_refused(family: Settings) -> None:
    assert sweep(family, FEW)["equal"] > 0


@pytest.mark.parity
def test_many_random_settings_are_the_references_or_are_refused(family: Settings) -> None:
    seen = sweep(family, MANY)
    assert seen["equal"] > MANY // 10 and seen["refused"] > MANY // 10, seen
