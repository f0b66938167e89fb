"""The grid, pairs and the result file, over a measuring process with known times."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edge_mllm.errors import BenchError, ModelNotFoundError, ResultFileError, SettingError
from edge_mllm.measure.bench.cases import Grid
from edge_mllm.measure.bench.measure import Plan, describe_model, run_grid, run_pairs
from edge_mllm.measure.bench.process import ModelProcess, drop_from_page_cache
from edge_mllm.measure.bench.result import Result, read_result, result_to_dict

WORKER = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))


@pytest.fixture
def model(tmp_path: Path) -> str:
    directory = tmp_path / "some-model"
    directory.mkdir()
    (directory / "decoder.gguf").write_bytes(b"weights" * 1000)
    return str(directory)


def grid_result(model: str, **plan: int) -> Result:
    settings = Plan(**{"repeat": 3, "warmup": 1, "loads": 1, **plan}, peaks=False, command=WORKER)
    return run_grid(Grid(models=[model], engines=["onnx", "gguf"]).cases(), settings)


def test_each_case_gives_a_run_with_every_repetition(model: str) -> None:
    result = grid_result(model)
    assert [(run.engine, len(run.samples)) for run in result.runs] == [("onnx", 3), ("gguf", 3)]
    run = result.runs[0]
    summary = run.summary()
    assert summary["vision"].median == 1.2
    assert summary["vision_per_tile"].median == pytest.approx(0.1)
    assert summary["residual"].median == pytest.approx(0.01)
    assert summary["second_ttft"].median == 0.05
    assert summary["joules/rapl/package"].median == 20.0
    assert (run.memory.peak_bytes, run.memory.steady.file) == (400 << 20, 200 << 20)
    assert (run.loads.cold, run.loads.warm) == ((0.4,), (0.4,))
    assert run.model.bytes_on_disk == 7000
    assert result.meters_refused == ("rapl/dram: readable by root only",)


def test_warm_ups_do_not_count_and_repetitions_differ(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("FAKE_WORKER_LOG", str(log))
    run_grid(Grid(models=[model]).cases(), Plan(repeat=2, warmup=2, loads=2, peaks=False, command=WORKER))
    commands = log.read_text().split("\n")
    assert [line.split()[2] for line in commands if line.startswith("answer")] == ["0", "1", "2", "3"]
    assert sum(line.startswith("load") for line in commands) == 5  # cold and warm twice, then the one that answers


def test_pairs_take_turns_and_give_ratios(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("FAKE_WORKER_LOG", str(log))
    a, b = Grid(models=[model], engines=["onnx", "gguf"]).cases()
    plan = Plan(repeat=4, warmup=0, loads=1, peaks=False, command=(*WORKER, "onnx=0.8", "gguf=0.4"))
    result = run_pairs([(a, b)], plan)
    turns = [line.split()[1] for line in log.read_text().split("\n") if line.startswith("answer")]
    assert turns == ["onnx", "gguf", "gguf", "onnx"] * 2
    (comparison,) = result.comparisons
    assert comparison.ratios["decode"].ratio == pytest.approx(0.5)
    assert comparison.ratios["decode"].decided
    assert comparison.ratios["decode_tps"].ratio == pytest.approx(2.0)
    assert comparison.ratios["vision"].ratio == 1.0
    assert not comparison.ratios["vision"].decided


def test_a_result_survives_its_file(model: str, tmp_path: Path) -> None:
    result = grid_result(model)
    file = tmp_path / "result.json"
    file.write_text(json.dumps(result_to_dict(result)))
    assert read_result(file) == result


def test_the_file_keeps_to_the_published_schema(model: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[2] / "edge_mllm/measure/bench/schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    data = json.loads(json.dumps(result_to_dict(grid_result(model))))
    validator.validate(data)
    data["runs"][0]["samples"][0]["ttft"] = "fast"
    assert not validator.is_valid(data)


def test_the_schema_that_ships_is_the_one_the_classes_give(tmp_path: Path) -> None:
    import subprocess

    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, str(root / "benchmarks/make_schema.py"), str(tmp_path / "s.json")], check=True)
    assert (tmp_path / "s.json").read_text() == (root / "edge_mllm/measure/bench/schema.json").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data | {"schema": "other/2"}, "other/2"),
        (lambda data: {k: v for k, v in data.items() if k != "machine"}, "machine"),
        (lambda data: data | {"repeat": "five"}, "repeat"),
        (lambda data: data | {"surprise": 1}, "surprise"),
        (lambda data: [data], "schema"),
    ],
)
def test_a_wrong_result_file_is_named(model: str, tmp_path: Path, change: object, words: str) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(change(result_to_dict(grid_result(model, repeat=1)))))  # type: ignore[operator]
    with pytest.raises(ResultFileError, match=words):
        read_result(file)


@pytest.mark.parametrize("text", [None, "{", "\xff"])
def test_what_is_no_json_is_named(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "result.json"
    if text is not None:
        file.write_text(text, "latin-1")
    with pytest.raises(ResultFileError, match=r"result\.json"):
        read_result(file)


def test_an_error_of_the_engine_is_passed_on(model: str) -> None:
    with pytest.raises(BenchError, match="no engine 'bad' here"):
        run_grid(Grid(models=[model], engines=["bad"]).cases(), Plan(peaks=False, command=WORKER))


def test_a_process_that_dies_is_reported_with_its_last_words(model: str) -> None:
    with pytest.raises(BenchError, match="signal 6: GGML_ASSERT failed"):
        run_grid(Grid(models=[model]).cases(), Plan(command=(*WORKER, "crash")))


def test_a_process_that_does_not_start_is_reported() -> None:
    with pytest.raises(BenchError, match="exit code 1: cannot start"), ModelProcess((*WORKER, "mute")):
        pass


def test_a_model_that_is_not_there_is_an_error_before_anything_starts() -> None:
    with pytest.raises(ModelNotFoundError):
        describe_model("/no/such/model")


@pytest.mark.parametrize("wrong", [{"repeat": 0}, {"warmup": -1}, {"loads": -1}])
def test_a_plan_without_measurements_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SettingError):
        Plan(**wrong)


def test_the_page_cache_can_be_dropped(model: str) -> None:
    assert drop_from_page_cache(Path(model))
    assert (Path(model) / "decoder.gguf").read_bytes() == b"weights" * 1000
