"""Which library runs a tower: measured with the first picture, remembered, refused beyond the tolerance.

Libraries are stand-ins that say themselves how long they took, so that neither clock nor processor decides.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_mllm
from edge_mllm.bundle.files import OPENVINO_TOWER, read_bundle
from edge_mllm.bundle.spec import BundleSpec, Part
from edge_mllm.errors import BundleError, EngineError
from edge_mllm.session.files import open_bundle
from edge_mllm.tower.agreement import disagreement
from edge_mllm.tower.cache import tower_digest
from edge_mllm.tower.choice import ChoosingTower, told
from edge_mllm.tower.engines import TowerEngine, TowerSession, open_tower
from edge_mllm.tower.placement import Placement, cpu_placements, on_cpu
from edge_mllm.tower.protocol import Encoded
from edge_mllm.tower.remembered import ChoiceMemory, Chosen
from edge_mllm.whole_file import write_first

STARTER = read_bundle(Path(edge_mllm.__file__).parent / "starter.edge", check_hashes=False).spec
TOKENS, N_EMBD = 4, STARTER.decoder.n_embd
PIXELS = np.random.default_rng(1).normal(size=(3, 3, 32, 32)).astype(np.float32)
ROWS = np.random.default_rng(2).normal(size=(TOKENS, N_EMBD)).astype(np.float32)


class StandIn:
    """A tower whose library takes a given time; ``runs`` are the tiles of every run."""

    row_width, tile_tokens, apart, newline = N_EMBD, TOKENS, False, None

    def __init__(
        self, place: Placement, seconds: list[float], rows: np.ndarray = ROWS, fault: Exception | None = None
    ) -> None:
        self.place, self.loaded, self.runs = place, False, list[int]()
        self._seconds, self._rows, self._fault = seconds, rows, fault

    def load(self) -> None:
        if self._fault is not None:
            raise self._fault
        self.loaded = True

    def encode(self, pixels: np.ndarray, progress: object = None, *, grids: object = None) -> Encoded:
        self.load()
        self.runs.append(len(pixels))
        seconds = self._seconds[min(len(self.runs), len(self._seconds)) - 1]
        return Encoded(np.stack([self._rows] * len(pixels)), seconds)

    def close(self) -> None:
        self.loaded = False


class Bench:
    """A choosing tower on stand-ins, and what was opened for it."""

    def __init__(self, spec: BundleSpec, folder: Path, **engines: dict[str, Any]) -> None:
        self.spec, self.opened, self.engines = spec, list[StandIn](), engines
        self.memory = ChoiceMemory(spec, 2, folder)

    def tower(self, *, measures: bool = True) -> ChoosingTower:
        places = [on_cpu(self.spec, engine) for engine in ("ort", "openvino", "openvino-bf16")]
        present = [place for place in places if place.engine.replace("-", "_") in self.engines]
        return ChoosingTower(self.spec, present, self._open, self.memory, measures=measures)

    def _open(self, place: Placement) -> StandIn:
        made = StandIn(place, **self.engines[place.engine.replace("-", "_")])
        self.opened.append(made)
        return made

    def runs(self, engine: str) -> list[int]:
        return [tiles for tower in self.opened if tower.place.engine == engine for tiles in tower.runs]

    @property
    def loaded(self) -> list[str]:
        return [tower.place.engine for tower in self.opened if tower.loaded]


@pytest.fixture
def spec() -> BundleSpec:
    return dataclasses.replace(
        STARTER, parts={"vision": Part(file="vision.onnx", sha256="ab" * 32, bytes=1000, precision="fp16")}
    )


@pytest.fixture(autouse=True)
def stand_in_versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """OpenVINO seems to be installed: what is chosen holds for its version."""
    versions = {"edge-mllm": "1", "onnxruntime": "1", "openvino": "1"}
    monkeypatch.setattr("edge_mllm.tower.remembered.package_versions", lambda: {**versions, "pillow": "9"})
    for place in ("choice", "cache"):
        monkeypatch.setattr(f"edge_mllm.tower.{place}.engine_label", lambda engine: f"{engine} {versions['openvino']}")
    return versions


def test_the_fastest_library_runs_the_first_picture_and_is_remembered(
    spec: BundleSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engines = {"ort": {"seconds": [0.3, 0.2]}, "openvino": {"seconds": [0.19]}, "openvino_bf16": {"seconds": [0.1]}}
    bench = Bench(spec, tmp_path, **engines)
    tower = bench.tower()
    assert tower.place.engine == "ort" and not tower.loaded
    found = tower.encode(PIXELS)
    assert (found.seconds, tower.place.engine, bench.loaded) == (0.1, "openvino-bf16", ["openvino-bf16"])
    assert bench.runs("ort") == [1, 1, 1, 1] and bench.runs("openvino-bf16") == [1, 1, 1, 1, 3]
    (line,) = caplog.messages
    assert line.startswith("the tower runs on openvino-bf16 from now on: ")
    assert "openvino 190 ms, openvino-bf16 100 ms, ort 200 ms a tile" in line
    assert "`vision_engine` names one" in line and "measured in" in line and "\n" not in line
    kept = json.loads(bench.memory.path.read_text())
    assert kept["engine"] == "openvino-bf16" and kept["by"] == "first picture" and kept["passed"] == {}
    assert kept["seconds"] == {"ort": 0.2, "openvino": 0.19, "openvino-bf16": 0.1}
    tower.encode(PIXELS)
    assert bench.runs("ort") == [1, 1, 1, 1]

    slow = {"ort": {"seconds": [0.01]}, "openvino": {"seconds": [9.0]}, "openvino_bf16": {"seconds": [9.0]}}
    again = Bench(spec, tmp_path, **slow)
    assert again.tower().encode(PIXELS).seconds == 9.0  # it stays, whatever is fast now
    assert again.runs("ort") == again.runs("openvino") == [] and len(caplog.messages) == 1


def test_what_is_remembered_is_loaded_before_a_picture_comes(spec: BundleSpec, tmp_path: Path) -> None:
    bench = Bench(spec, tmp_path, ort={"seconds": [1.0]}, openvino={"seconds": [0.1]})
    early = bench.tower()
    early.load()
    assert bench.loaded == ["ort"]
    early.encode(PIXELS)
    assert bench.loaded == ["openvino"]
    early.close()
    tower = bench.tower()
    tower.load()
    assert tower.place == on_cpu(spec, "openvino") and bench.loaded == ["openvino"]


def test_a_difference_that_is_noise_keeps_the_default(spec: BundleSpec, tmp_path: Path) -> None:
    bench = Bench(spec, tmp_path, ort={"seconds": [0.2]}, openvino={"seconds": [0.195]})
    assert bench.tower().encode(PIXELS).seconds == 0.2
    found = bench.memory.find()
    assert found is not None and found.engine == "ort" and bench.loaded == ["ort"]


@pytest.mark.parametrize(("seconds", "runs"), [([5.0, 0.01], 1), ([0.3, 0.3, 0.01], 2)])
def test_a_library_that_is_clearly_slower_is_given_up(
    seconds: list[float], runs: int, spec: BundleSpec, tmp_path: Path
) -> None:
    bench = Bench(spec, tmp_path, ort={"seconds": [0.1]}, openvino={"seconds": seconds})
    bench.tower().encode(PIXELS)
    assert len(bench.runs("openvino")) == runs and bench.loaded == ["ort"]


def test_slow_tiles_are_run_once(spec: BundleSpec, tmp_path: Path) -> None:
    bench = Bench(spec, tmp_path, ort={"seconds": [8.0]}, openvino={"seconds": [4.0]})
    bench.tower().settle(lambda: PIXELS, None)
    assert bench.runs("ort") == bench.runs("openvino") == [1]
    assert bench.loaded == ["openvino"]


FAULTS = [BundleError(Path("vision.onnx"), "OpenVINO cannot load the vision tower (Foo)"), EngineError("it failed")]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_library_that_does_not_run_the_tower_leaves_the_default_and_is_not_tried_again(
    fault: Exception, spec: BundleSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(spec, tmp_path, ort={"seconds": [0.2]}, openvino={"seconds": [0.1], "fault": fault})
    assert bench.tower().encode(PIXELS).seconds == 0.2
    (line,) = caplog.messages
    assert line.startswith("the tower runs on ort from now on: ort 200 ms a tile") and f"not openvino: {fault}" in line
    found = bench.memory.find()
    assert found is not None and found.passed == {"openvino": str(fault)} and bench.loaded == ["ort"]
    opened = len(bench.opened)
    assert bench.tower().encode(PIXELS).seconds == 0.2
    assert len(bench.opened) == opened + 1 and len(caplog.messages) == 1


def test_a_default_that_fails_is_an_error_and_nothing_is_remembered(spec: BundleSpec, tmp_path: Path) -> None:
    bench = Bench(spec, tmp_path, ort={"seconds": [0.2], "fault": EngineError("broken")}, openvino={"seconds": [0.1]})
    with pytest.raises(EngineError, match="broken"):
        bench.tower().encode(PIXELS)
    assert bench.memory.find() is None


def _turned(cosine: float) -> np.ndarray:
    """Rows that have this cosine with ROWS."""
    other = np.random.default_rng(3).normal(size=ROWS.shape)
    unit = ROWS / np.linalg.norm(ROWS, axis=-1, keepdims=True)
    other -= (other * unit).sum(-1, keepdims=True) * unit
    other /= np.linalg.norm(other, axis=-1, keepdims=True)
    return (cosine * unit + np.sqrt(1 - cosine**2) * other).astype(np.float32)


@pytest.mark.parametrize(
    ("precision", "cosine", "agrees"),
    [
        ("fp32", 0.999995, True),
        ("fp32", 0.99995, False),
        ("fp16", 0.9995, True),
        ("fp16", 0.998, False),
        ("int8", 0.985, True),
        ("int8_static", 0.975, False),
    ],
)
def test_embeddings_must_agree_within_the_tolerance_of_the_recipe(
    precision: str, cosine: float, agrees: bool, spec: BundleSpec, tmp_path: Path
) -> None:
    parts = {"vision": dataclasses.replace(spec.parts["vision"], precision=precision)}
    rows = _turned(cosine)
    assert (disagreement(ROWS, rows, N_EMBD, precision) == "") is agrees
    engines = {"ort": {"seconds": [0.2]}, "openvino": {"seconds": [0.1], "rows": rows}}
    bench = Bench(dataclasses.replace(spec, parts=parts), tmp_path, **engines)
    bench.tower().encode(PIXELS)
    found = bench.memory.find()
    assert found is not None and found.engine == ("openvino" if agrees else "ort")
    assert agrees or "cosine of 0.9" in found.passed["openvino"]
    assert len(bench.runs("openvino")) == (5 if agrees else 1)


def test_one_token_that_is_off_counts_where_the_tower_is_exact() -> None:
    rows = ROWS.copy()
    rows[2] = _turned(0.99)[2]
    assert "least cosine of 0.99" in disagreement(ROWS, rows, N_EMBD, "fp32")
    assert "mean cosine of 0.997" in disagreement(ROWS, rows, N_EMBD, "fp16")
    assert disagreement(ROWS, rows, N_EMBD, "int8") == ""
    nothing = np.zeros_like(ROWS)
    assert disagreement(nothing, nothing, N_EMBD, "fp32") == ""
    assert "cosine of 0.00000" in disagreement(nothing, ROWS, N_EMBD, "int8")


def test_other_versions_towers_and_threads_are_measured_anew(
    spec: BundleSpec, tmp_path: Path, stand_in_versions: dict[str, str]
) -> None:
    Bench(spec, tmp_path, ort={"seconds": [0.2]}, openvino={"seconds": [0.1]}).tower().encode(PIXELS)
    assert ChoiceMemory(spec, 3, tmp_path).find() is None
    other = {"vision": dataclasses.replace(spec.parts["vision"], sha256="cd" * 32)}
    assert ChoiceMemory(dataclasses.replace(spec, parts=other), 2, tmp_path).find() is None
    beside = {**spec.parts, OPENVINO_TOWER: other["vision"]}
    assert ChoiceMemory(dataclasses.replace(spec, parts=beside), 2, tmp_path).find() is None
    stand_in_versions["openvino"] = "2"
    assert ChoiceMemory(spec, 2, tmp_path).find() is None
    bench = Bench(spec, tmp_path, ort={"seconds": [0.1]}, openvino={"seconds": [0.2]})
    bench.tower().encode(PIXELS)
    found = bench.memory.find()
    assert found is not None and (found.engine, found.versions["openvino"]) == ("ort", "2")


def test_an_unreadable_choice_is_made_again(spec: BundleSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(spec, tmp_path, ort={"seconds": [0.2]}, openvino={"seconds": [0.1]})
    bench.memory.path.parent.mkdir()
    bench.memory.path.write_text("{")
    assert bench.tower().encode(PIXELS).seconds == 0.1
    assert "cannot be read" in caplog.messages[0]
    found = bench.memory.find()
    assert found is not None and found.engine == "openvino"


def test_of_two_processes_the_first_ones_choice_counts_for_both(spec: BundleSpec, tmp_path: Path) -> None:
    first = Bench(spec, tmp_path, ort={"seconds": [0.1]}, openvino={"seconds": [0.2]})
    second = Bench(spec, tmp_path, ort={"seconds": [0.2]}, openvino={"seconds": [0.1]})
    tower = second.tower()
    first_tower = first.tower()
    second.engines["openvino"]["seconds"] = _Then([0.1], lambda: first_tower.encode(PIXELS))
    tower.settle(lambda: PIXELS, None)
    assert first_tower.place.engine == tower.place.engine == "ort"
    assert second.loaded == [] and tower.encode(PIXELS).seconds == 0.2
    assert [file.name for file in second.memory.path.parent.iterdir()] == [second.memory.path.name]


class _Then(list[float]):
    """Seconds; when they are first asked for, something else happens."""

    def __init__(self, seconds: list[float], action: Callable[[], object]) -> None:
        super().__init__(seconds)
        self._actions = [action]

    def __getitem__(self, place: Any) -> Any:
        if self._actions:
            self._actions.pop()()
        return super().__getitem__(place)


def _write(place: Path, number: int) -> bool:
    return write_first(place, [str(number).encode()])


def test_of_many_processes_one_writes_the_file(tmp_path: Path) -> None:
    place = tmp_path / "choice.json"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        told_so = pool.starmap(_write, [(place, number) for number in range(40)])
    assert told_so.count(True) == 1 and place.read_text() == str(told_so.index(True))
    assert [file.name for file in tmp_path.iterdir()] == ["choice.json"]


def test_nothing_is_measured_that_cannot_be_kept(
    spec: BundleSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    bench = Bench(spec, tmp_path / "file", ort={"seconds": [0.2]}, openvino={"seconds": [0.1]})
    assert bench.tower().encode(PIXELS).seconds == 0.2
    assert bench.runs("openvino") == [] and "could not be kept" in caplog.text and "`vision_engine`" in caplog.text


def test_nothing_is_measured_without_memory_for_it(
    spec: BundleSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edge_mllm.tower.choice.available_bytes", lambda: 3000)
    bench = Bench(spec, tmp_path, ort={"seconds": [0.2]}, openvino={"seconds": [0.1]})
    assert bench.tower().encode(PIXELS).seconds == 0.2
    assert bench.runs("openvino") == [] and bench.memory.find() is None and "are free" in caplog.text


def test_with_little_memory_only_what_is_remembered_counts(spec: BundleSpec, tmp_path: Path) -> None:
    bench = Bench(spec, tmp_path, ort={"seconds": [0.2]}, openvino={"seconds": [0.1]})
    assert bench.tower(measures=False).encode(PIXELS).seconds == 0.2
    assert bench.memory.find() is None
    bench.tower().encode(PIXELS)
    assert bench.tower(measures=False).encode(PIXELS).seconds == 0.1


def test_a_library_that_is_gone_leaves_the_default(
    spec: BundleSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(spec, tmp_path, ort={"seconds": [0.2]}, openvino={"seconds": [0.1]})
    bench.tower().encode(PIXELS)

    def broken(engine: str) -> str:
        raise EngineError("openvino cannot be loaded: libtbb")

    monkeypatch.setattr("edge_mllm.tower.choice.engine_label", broken)
    assert bench.tower().encode(PIXELS).seconds == 0.2
    assert "the tower runs on ort instead of openvino: openvino cannot be loaded" in caplog.messages[-1]


def test_the_tower_beside_is_openvinos(spec: BundleSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    int8 = {"vision": dataclasses.replace(spec.parts["vision"], precision="int8")}
    alone = dataclasses.replace(spec, parts=int8)
    assert cpu_placements(alone) == (Placement(),)
    beside = Part(file="vision_openvino.onnx", sha256="cd" * 32, bytes=1000, precision="int8_static")
    both = dataclasses.replace(spec, parts={**int8, OPENVINO_TOWER: beside})
    default, *others = cpu_placements(both)
    assert default == Placement() and [place.part for place in others] == [OPENVINO_TOWER] * 2
    assert [place.provider for place in others] == ["openvino", "openvino-bf16"]
    monkeypatch.undo()
    monkeypatch.setattr("edge_mllm.tower.cache.engine_label", lambda engine: "the same")
    assert tower_digest(both, others[0]) != tower_digest(both, default) == tower_digest(alone)


@pytest.fixture
def with_stand_in(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Path]:
    """A bundle that OpenVINO seems to run twice as fast as ONNX Runtime; its sessions are ONNX Runtime's."""
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("edge_mllm.tower.placement.usable_engines", lambda _: ("ort", "openvino"))
    monkeypatch.setattr("edge_mllm.session.open.engine_label", lambda engine: engine)
    seconds = {"ort": 0.2, "openvino": 0.1}
    monkeypatch.setattr("edge_mllm.tower.choice._seconds", lambda tower, *_: seconds[tower.place.engine])

    def opened(path: Path, engine: TowerEngine, threads: int | None) -> TowerSession:
        return open_tower(path, "ort", threads)

    monkeypatch.setattr("edge_mllm.tower.tower.open_tower", opened)
    caplog.set_level(logging.WARNING)
    return tiny_bundle


def _answer(bundle: Path, **options: Any) -> edge_mllm.Answer:
    with edge_mllm.load(bundle, engine="gguf", threads=1, **options) as model:
        picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
        return model.generate("What?", [picture], max_new_tokens=2)


def test_the_first_answer_of_a_machine_chooses_and_the_next_ones_obey(
    with_stand_in: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = _answer(with_stand_in)
    assert first.devices["vision"].provider == "openvino"
    (line,) = caplog.messages
    assert "openvino 100 ms, ort 200 ms a tile" in line
    (file,) = (tmp_path / "cache" / "towers").iterdir()
    kept = json.loads(file.read_text())
    assert first.timings.load_s > kept["measured_s"] > 0
    assert _answer(with_stand_in).devices["vision"].provider == "openvino"
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("options", [{"vision_engine": "ort"}, {"provider": "cpu"}])
def test_a_named_library_is_used_and_nothing_is_measured(
    options: dict[str, Any], with_stand_in: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert _answer(with_stand_in, **options).devices["vision"].provider == "cpu"
    assert not caplog.messages and not (tmp_path / "cache" / "towers").exists()
    _answer(with_stand_in)
    assert _answer(with_stand_in, **options).devices["vision"].provider == "cpu"


def test_low_memory_measures_nothing(with_stand_in: Path, tmp_path: Path) -> None:
    assert _answer(with_stand_in, low_memory=True).devices["vision"].provider == "cpu"
    assert not (tmp_path / "cache" / "towers").exists()


def test_embeddings_that_are_asked_for_first_choose_too(with_stand_in: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    with edge_mllm.load(with_stand_in, engine="gguf", threads=1) as model:
        rows = model.encode(picture)
        answer = model.generate("What?", [picture], max_new_tokens=2)
    assert answer.devices["vision"].provider == "openvino" and rows.shape[0] == answer.usage.image_tokens


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_itself_is_measured(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Which library wins is the machine's affair; that both ran and agreed is not."""
    monkeypatch.undo()
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path))
    first, again = _answer(tiny_bundle), _answer(tiny_bundle)
    spec = open_bundle(tiny_bundle, check_hashes=False).spec
    found = ChoiceMemory(spec, 1, tmp_path).find()
    assert found is not None and {"ort", "openvino"} <= {*found.seconds}
    assert caplog.messages == [told(found)]
    provider = on_cpu(spec, found.engine).provider
    assert first.devices["vision"].provider == again.devices["vision"].provider == provider
    assert first.text == again.text


def test_a_choice_is_told_in_one_line() -> None:
    chosen = Chosen(
        engine="ort",
        by="tune",
        seconds={"ort": 0.25},
        passed={"openvino": "no"},
        measured_s=1.26,
        machine="m",
        tower="t",
        threads=2,
        versions={},
    )
    assert told(chosen) == (
        "the tower runs on ort from now on: ort 250 ms a tile, measured in 1.3 s; not openvino: no; "
        "`vision_engine` names one"
    )
