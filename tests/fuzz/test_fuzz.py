"""Three hundred of the cases of ``make fuzz``, and a little of ``make soak``."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from fuzz.cases import case_of
from fuzz.mutations import damaged_bytes, damaged_json, damaged_text
from fuzz.run import GOOD, Found, run_cases, summary
from fuzz.soak import FLAT_BYTES, ask_from_two_threads, kill_caching, kill_saving
from fuzz.sources import make_sources
from fuzz.worker import outcome_of

pytestmark = pytest.mark.xdist_group("fuzz")


ONCE_FAILED = (5031, 5723, 6404, 8252, 9066, 9504)
"""Cases of the 10,000 that crashed or raised something foreign when they were first run."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sources(tmp_path_factory.mktemp("fuzz") / "sources")


def test_three_hundred_mutated_inputs_end_in_an_answer_or_in_one_line(sources: Path) -> None:
    found = run_cases(sources, [*range(300), *ONCE_FAILED], seed=14, workers=2, minutes=8)
    assert [each for each in found if each.outcome not in GOOD] == []
    assert len(found) == 300 + len(ONCE_FAILED)
    told = summary(found, seed=14, seconds=1.0)
    assert set(told["kinds"]) == {case_of(number) for number in range(100)}
    assert min(told["outcomes"].values()) > 50


def test_what_must_not_be_is_noticed() -> None:
    def raises(error: BaseException):
        def run(_: int) -> None:
            raise error

        return run

    from edge_mllm.errors import EngineError

    assert outcome_of(raises(EngineError("no")), 1) == ("refused", "no")
    assert outcome_of(raises(KeyError("x")), 1)[0] == "foreign"
    assert outcome_of(raises(SystemExit(3)), 1)[0] == "foreign"
    assert outcome_of(lambda _: None, 1) == ("answered", "")
    bad = Found(3, "pair", "crash", "exit -6")
    assert summary([bad], seed=1, seconds=60)["failures"][0]["text"] == "exit -6"


@pytest.mark.parametrize("kind", ["abort", "hang"])
def test_a_case_that_ends_or_never_ends_its_process_is_noticed(
    sources: Path, monkeypatch, tmp_path: Path, kind
) -> None:
    """A worker of our own in the package's place."""
    package = tmp_path / "fuzz"
    shutil.copytree(Path(__file__).parent, package, ignore=shutil.ignore_patterns("test_*", "__pycache__"))
    end = {"abort": "import os; os.abort()", "hang": "while True: pass"}[kind]
    (package / "worker.py").write_text(f"import sys\nfor line in sys.stdin:\n    {end}\n")
    monkeypatch.setattr("fuzz.run.TESTS", tmp_path)
    monkeypatch.setattr("fuzz.watched.MAX_SECONDS", 1.0)
    (found,) = run_cases(sources, [7], seed=1, workers=1, minutes=1)
    assert found.outcome == {"abort": "crash", "hang": "time"}[kind]


def test_mutations_are_seeded() -> None:
    for damage, whole in (
        (damaged_bytes, b"x" * 90),
        (damaged_text, "y" * 90),
        (damaged_json, '{"a": [1, {"b": "c"}]}'),
    ):
        made = [damage(whole, random.Random(seed)) for seed in range(30)]
        assert made == [damage(whole, random.Random(seed)) for seed in range(30)]
        assert len(set(made)) > 15


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_two_threads_get_every_answer_right(engine: str) -> None:
    found = ask_from_two_threads(engine, 60)
    assert found["wrong"] == []
    assert found["grown_bytes"] < FLAT_BYTES


def test_nothing_half_written_is_read(sources: Path, tmp_path: Path) -> None:
    rng = random.Random(5)
    assert kill_saving(sources, tmp_path, 2, rng) == []
    assert kill_caching(sources, tmp_path, 2, rng) == []
