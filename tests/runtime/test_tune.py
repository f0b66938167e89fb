"""The search on stages whose times are known, and the file that keeps the winner."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edge_mllm.bench.fingerprint import fingerprint
from edge_mllm.bundle import Engine
from edge_mllm.tune.kept import Tuned, bundle_hash, find, keep
from edge_mllm.tune.search import CHUNKS, Workload, search, thread_counts

WORK = Workload(tiles=10, prompt_tokens=1000, answer_tokens=100)


class FakeStages:
    """Two threads are best for gguf, which beats onnx; a chunk of 1024 is a little better than 512."""

    def __init__(self, slow: bool = False) -> None:
        self.asked: list[tuple[Engine, int, int]] = []
        self.slow = slow

    def tile(self, threads: int) -> float:
        return 0.4 / threads

    def decode(self, engine: Engine, threads: int, chunk: int) -> tuple[float, float]:
        self.asked.append((engine, threads, chunk))
        token = {"gguf": 0.001, "onnx": 0.003}[engine] * (0.8 if chunk == 1024 else 1.0)
        return token / threads, 0.01 * (2.0 if threads > 2 else 1.0)


def test_the_fastest_sum_of_stages_wins() -> None:
    stages = FakeStages()
    found = search(stages, ["onnx", "gguf"], [1, 2, 4], WORK)
    best = found.best
    assert (best.engine, best.threads, best.chunk) == ("gguf", 4, 1024)
    assert best.seconds == pytest.approx(0.1 * 10 + 0.0008 / 4 * 1000 + 0.02 * 100)
    assert (found.default.engine, found.default.threads, found.default.chunk) == ("onnx", 1, 512)
    assert found.complete and len(found.trials) == len(stages.asked)
    assert {trial.chunk for trial in found.trials} == {512, *(chunk for chunk in CHUNKS if chunk <= 2000)}


def test_a_difference_that_is_noise_changes_nothing() -> None:
    class Flat(FakeStages):
        def decode(self, engine: Engine, threads: int, chunk: int) -> tuple[float, float]:
            return 0.001 * (0.99 if chunk == 128 else 1.0), 0.01

        def tile(self, threads: int) -> float:
            return 0.1

    found = search(Flat(), ["gguf"], [2, 1], WORK)
    assert found.best == found.default


def test_no_measurement_begins_after_the_limit() -> None:
    found = search(FakeStages(), ["gguf", "onnx"], [2, 1], WORK, limit_s=-1.0)
    assert len(found.trials) == 1 and not found.complete
    assert found.best == found.default


def test_thread_counts_stay_within_the_cores() -> None:
    assert thread_counts(4, 4) == [4, 3, 2]
    assert thread_counts(1, 1) == [1]
    assert thread_counts(4, 8) == [4, 8, 3, 2]
    assert thread_counts(8, 4) == [4]


def tuned(bundle: Path) -> Tuned:
    machine = fingerprint(peaks=False)
    return Tuned(
        machine=machine.id,
        bundle=bundle_hash(bundle),
        engine="gguf",
        threads=3,
        chunk=256,
        seconds=1.0,
        default_seconds=2.0,
        created="now",
        versions=machine.versions,
    )


def test_what_is_kept_is_found_for_this_bundle_only(tmp_path: Path) -> None:
    one, other = tmp_path / "one.edge", tmp_path / "other.edge"
    for number, bundle in enumerate((one, other)):
        bundle.mkdir()
        (bundle / "bundle.json").write_text(f'{{"number": {number}}}')
    keep(tuned(one), tmp_path / "cache")
    assert find(one, tmp_path / "cache") == tuned(one)
    assert find(other, tmp_path / "cache") is None
    (one / "bundle.json").write_text('{"number": 2}')
    assert find(one, tmp_path / "cache") is None


def test_other_versions_and_damage_count_as_nothing(tmp_path: Path) -> None:
    bundle = tmp_path / "one.edge"
    bundle.mkdir()
    (bundle / "bundle.json").write_text("{}")
    path = keep(dataclasses.replace(tuned(bundle), versions={"onnxruntime": "0.1"}), tmp_path)
    assert find(bundle, tmp_path) is None
    path.write_text("{")
    assert find(bundle, tmp_path) is None
    assert find(tmp_path / "nothing", tmp_path) is None
