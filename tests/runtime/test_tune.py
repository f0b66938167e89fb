"""The search on stages whose times are known, and the file that keeps the winner."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_mllm.answer.rates import kept_rates
from edge_mllm.costs.kept import Tuned, applicable, bundle_hash, find, keep
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.errors import EngineError, SettingError
from edge_mllm.machine.fingerprint import fingerprint
from edge_mllm.measure.tune.remembering import remember_tower
from edge_mllm.measure.tune.search import CHUNKS, TILE_BATCHES, Variant, Workload, search, thread_counts
from edge_mllm.measure.tune.stages import ModelStages, usable_variants
from edge_mllm.session.files import open_bundle
from edge_mllm.tower.engines import TowerEngine, TowerSession, open_tower, usable_engines
from edge_mllm.tower.remembered import ChoiceMemory, Chosen

WORK = Workload(tiles=10, prompt_tokens=1000, answer_tokens=100)
ONNX, GGUF = Variant("onnx"), Variant("gguf")


class FakeStages:
    """gguf beats onnx, four threads are best, a chunk of 1024 is a little better than 512, and two tiles than one."""

    towers: tuple[TowerEngine, ...] = ("ort",)

    def __init__(self) -> None:
        self.asked: list[tuple[Variant, int, int]] = []
        self.tiles: list[tuple[TowerEngine, int, int]] = []

    def tile(self, tower: TowerEngine, threads: int, batch: int) -> float:
        self.tiles.append((tower, threads, batch))
        return 0.4 / threads * {1: 1.0, 2: 0.5, 4: 2.0}[batch]

    def decode(self, variant: Variant, threads: int, chunk: int) -> tuple[float, float]:
        self.asked.append((variant, threads, chunk))
        token = {"gguf": 0.001, "onnx": 0.003}[variant.engine] * (0.8 if chunk == 1024 else 1.0)
        return token / threads, 0.01 * (2.0 if threads > 2 else 1.0)


def test_the_fastest_sum_of_stages_wins() -> None:
    stages = FakeStages()
    found = search(stages, [ONNX, GGUF], [1, 2, 4], WORK)
    best, default = found.best.settings, found.default.settings
    assert (best.variant, best.threads, best.chunk, best.tile_batch) == (GGUF, 4, 1024, 2)
    assert found.best.seconds == pytest.approx(0.05 * 10 + 0.0008 / 4 * 1000 + 0.02 * 100)
    assert (default.variant, default.threads, default.chunk, default.tile_batch) == (ONNX, 1, 512, 1)
    assert found.complete and not found.refused
    assert {trial.settings.chunk for trial in found.trials} == {512, *(chunk for chunk in CHUNKS if chunk <= 2000)}
    assert {trial.settings.tile_batch for trial in found.trials} == {1, *TILE_BATCHES}
    assert len(set(stages.asked)) == len(stages.asked) and len(set(stages.tiles)) == len(stages.tiles)


def test_a_difference_that_is_noise_changes_nothing() -> None:
    class Flat(FakeStages):
        def decode(self, variant: Variant, threads: int, chunk: int) -> tuple[float, float]:
            return 0.001 * (0.99 if chunk == 128 else 1.0), 0.01

        def tile(self, tower: TowerEngine, threads: int, batch: int) -> float:
            return 0.1

    found = search(Flat(), [GGUF], [2, 1], WORK)
    assert found.best == found.default


def test_no_measurement_begins_after_the_limit() -> None:
    found = search(FakeStages(), [GGUF, ONNX], [2, 1], WORK, limit_s=-1.0)
    assert len(found.trials) == 1 and not found.complete
    assert found.best == found.default


def test_a_measurement_that_would_end_after_the_limit_is_left_out() -> None:
    class Slow(FakeStages):
        def decode(self, variant: Variant, threads: int, chunk: int) -> tuple[float, float]:
            time.sleep(0.2)
            return 0.001, 0.01

    found = search(Slow(), [GGUF, ONNX], [2, 1], WORK, limit_s=0.3)
    assert len(found.trials) == 1 and not found.complete


def test_a_decoder_that_does_not_run_is_named_and_left_out() -> None:
    class Broken(FakeStages):
        def decode(self, variant: Variant, threads: int, chunk: int) -> tuple[float, float]:
            if variant.precision == "bnb4":
                raise EngineError("no such kernel")
            return (0.002 if variant.precision == "q4" else 0.001), 0.01

    variants = [Variant("onnx", name) for name in ("q4", "bnb4", "q8")]
    found = search(Broken(), variants, [1], WORK)
    assert found.best.settings.variant == variants[2]
    assert found.refused == ("onnx bnb4: no such kernel",)
    with pytest.raises(EngineError):
        search(Broken(), variants[1:], [1], WORK)


class Towers(FakeStages):
    """OpenVINO in float32 is slower, in bfloat16 faster or not there at all."""

    towers = ("ort", "openvino", "openvino-bf16")
    has_bfloat16 = True

    def tile(self, tower: TowerEngine, threads: int, batch: int) -> float:
        if tower == "openvino-bf16" and not self.has_bfloat16:
            raise SettingError("no bfloat16")
        return super().tile(tower, threads, batch) * {"ort": 1.0, "openvino": 1.5, "openvino-bf16": 0.6}[tower]


def test_the_fastest_tower_library_wins() -> None:
    stages = Towers()
    found = search(stages, [GGUF], [2], WORK)
    assert found.best.settings.tower == "openvino-bf16" and found.default.settings.tower == "ort"
    assert {tower for tower, _, batch in stages.tiles if batch == 1} == set(Towers.towers)
    assert {tower for tower, _, batch in stages.tiles if batch > 1} == {"openvino-bf16"}


def test_a_tower_library_that_does_not_run_is_named() -> None:
    stages = Towers()
    stages.has_bfloat16 = False
    found = search(stages, [GGUF], [2], WORK)
    assert found.best.settings.tower == "ort"
    assert found.refused == ("openvino-bf16: no bfloat16",)


@pytest.fixture
def three_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They seem to be installed; those that are not ONNX Runtime give embeddings that point the other way."""
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path))
    monkeypatch.setattr("edge_mllm.tower.placement.usable_engines", lambda _: Towers.towers)
    monkeypatch.setattr("edge_mllm.session.open.engine_label", lambda engine: engine)

    class Turned:
        def __init__(self, path: Path, threads: int | None) -> None:
            self._session = open_tower(path, "ort", threads)
            self.get_inputs, self.get_outputs = self._session.get_inputs, self._session.get_outputs

        def run(self, names: list[str], feeds: Mapping[str, Any]) -> list[Any]:
            return [-found for found in self._session.run(names, feeds)]

    def opened(path: Path, engine: TowerEngine, threads: int | None) -> TowerSession:
        return open_tower(path, "ort", threads) if engine == "ort" else Turned(path, threads)

    monkeypatch.setattr("edge_mllm.tower.tower.open_tower", opened)


@pytest.mark.usefixtures("three_libraries")
def test_what_a_search_finds_counts_for_the_first_picture_too(tiny_bundle: Path) -> None:
    def kept(threads: int) -> Chosen | None:
        return ChoiceMemory(open_bundle(tiny_bundle).spec, threads).find()

    remember_tower(tiny_bundle, search(Towers(), [GGUF], [2], WORK, limit_s=-1.0))
    assert kept(2) is None  # time ran out before all were tried
    remember_tower(tiny_bundle, search(Towers(), [GGUF], [2], WORK))
    found = kept(2)
    assert found is not None and kept(1) is None
    assert (found.engine, found.by, found.passed) == ("openvino-bf16", "tune", {})
    assert found.seconds["ort"] > found.seconds["openvino-bf16"]
    stages = Towers()
    stages.has_bfloat16 = False
    remember_tower(tiny_bundle, search(stages, [GGUF], [2], WORK))
    found = kept(2)
    assert found is not None and (found.engine, found.passed) == ("ort", {"openvino-bf16": "no bfloat16"})


@pytest.mark.usefixtures("three_libraries")
def test_a_tower_library_with_other_embeddings_is_refused(tiny_bundle: Path) -> None:
    stages = ModelStages(tiny_bundle, WORK)
    assert tuple(stages.towers) == Towers.towers
    assert stages.tile("ort", 1, 1) > 0 and stages.tile("ort", 1, 2) > 0
    with pytest.raises(EngineError, match=r"its embeddings have a least cosine of -1\.00000 with those of ort"):
        stages.tile("openvino", 1, 1)


def test_without_tiles_no_tower_library_is_tried() -> None:
    stages = Towers()
    assert search(stages, [GGUF], [2], dataclasses.replace(WORK, tiles=0)).complete
    assert stages.tiles == []


@pytest.mark.parametrize(
    ("precision", "installed", "expected"),
    [
        ("fp16", True, ("ort", "openvino", "openvino-bf16")),
        ("int8_static", True, ("ort", "openvino", "openvino-bf16")),
        ("int8", True, ("ort",)),
        ("fp16", False, ("ort",)),
    ],
)
def test_libraries_without_fast_code_are_not_tried(
    precision: str, installed: bool, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object() if installed else None)
    assert usable_engines(precision) == expected


def test_the_tower_library_is_kept_and_its_rates_are_for_it_alone(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path))
    kept = dataclasses.replace(tuned(tiny_bundle), vision_engine="openvino", tile_s=0.1, token_s=0.01)
    keep(kept)
    assert kept.options()["vision_engine"] == "openvino"
    assert "vision_engine" not in tuned(tiny_bundle).options()
    spec, settings = open_bundle(tiny_bundle).spec, DecoderSettings(threads=3, chunk=256)
    with_it = kept_rates(tiny_bundle, spec, ("gguf", "openvino"), settings, 100)
    assert with_it is not None and with_it.tile_s == 0.1
    assert kept_rates(tiny_bundle, spec, ("gguf", "ort"), settings, 100) is None
    other_cache = dataclasses.replace(settings, kv_type="f32")
    assert kept_rates(tiny_bundle, spec, ("gguf", "openvino"), other_cache, 100) is None
    keep(dataclasses.replace(kept, kv_type="f32"))
    assert kept_rates(tiny_bundle, spec, ("gguf", "openvino"), other_cache, 100) == with_it


def test_llama_cpp_is_searched_with_either_cache(tiny_bundle: Path) -> None:
    assert usable_variants(tiny_bundle) == [ONNX, GGUF, Variant("gguf", kv_type="f32")]
    assert str(Variant("gguf", kv_type="f32")) == "gguf cache f32"


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
        tile_batch=2,
        precision=None,
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


def test_options_of_the_caller_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bundle.json").write_text("{}")
    keep(dataclasses.replace(tuned(tmp_path), precision="q8"))
    found = applicable(tmp_path, None, None)
    assert found is not None
    expected = {"engine": "gguf", "threads": 3, "chunk": 256, "tile_batch": 2, "precision": "decoder_model_merged=q8"}
    assert found.options() == expected
    assert applicable(tmp_path, "onnx", None) is applicable(tmp_path, None, 2) is applicable(tmp_path, None, None, "q4")
    assert applicable(tmp_path, "onnx", None) is None
