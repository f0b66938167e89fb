"""Tables, CSV and plots over results with known figures."""

from __future__ import annotations

import csv
import dataclasses
import io
import sys
from pathlib import Path

import pytest

from edge_mllm.errors import SettingError
from edge_mllm.machine.peaks import Peaks
from edge_mllm.measure.bench.cases import Grid
from edge_mllm.measure.bench.measure import Plan, run_grid, run_pairs
from edge_mllm.measure.bench.plot import plot_stages
from edge_mllm.measure.bench.report import Sheet, caption, ratio_sheets, run_sheet, to_csv, to_markdown
from edge_mllm.measure.bench.result import Result, result_to_dict, shares

COMMAND = (sys.executable, str(Path(__file__).with_name("fake_worker.py")), "onnx=0.8", "gguf=0.4")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("model") / "some-model"
    directory.mkdir()
    (directory / "decoder.gguf").write_bytes(b"w" * (3 << 20))
    return str(directory)


@pytest.fixture(scope="module")
def result(model: str) -> Result:
    a, b = Grid(models=[model], engines=["onnx", "gguf"]).cases()
    return run_pairs([(a, b)], Plan(repeat=3, loads=1, peaks=False, command=COMMAND))


def lines_of(sheet: Sheet) -> dict[str, tuple[str, ...]]:
    return {line[0]: line[1:] for line in sheet.lines}


def test_few_runs_stand_side_by_side(result: Result) -> None:
    sheet = run_sheet([result])
    assert sheet.header == ("model", "some-model", "some-model")
    lines = lines_of(sheet)
    assert lines["engine"] == ("onnx", "gguf")
    assert lines["tower per tile"] == ("100 ms ±0%", "100 ms ±0%")
    assert lines["memory, steady"] == ("300 MiB (100 own, 200 mapped)",) * 2
    assert lines["memory, peak"] == ("400 MiB", "400 MiB")
    assert lines["on disk"] == ("3.0 MiB", "3.0 MiB")
    assert lines["energy per answer"] == ("20.00 J rapl/package",) * 2
    assert lines["throttled"] == ("1 thermal throttle events",) * 2
    assert lines["residual"] == ("1.0 %", "1.0 %")


def test_shares_of_the_machines_limits(result: Result) -> None:
    """Decoding reads its weights once a token; the tower's operations are set against the peak of its precision."""
    peaks = Peaks(threads=2, read_bytes_per_s=4e9, buffer_bytes=1, float32_ops_per_s=1e9, int8_ops_per_s=8e9)
    run = result.runs[0]
    summary = run.summary()
    tps, vision = summary["decode_tps"].median, summary["vision"].median
    model = dataclasses.replace(run.model, decode_bytes=10**7, tower_ops=1e9, parts={"vision": "int8"})
    run = dataclasses.replace(run, model=model)
    found = shares(run, peaks)
    assert found.decode_of_bandwidth == pytest.approx(1e7 * tps / 4e9)
    assert found.tower_of_int8 == pytest.approx(1e9 / vision / 8e9)
    assert found.tower_of_float32 == pytest.approx(1e9 / vision / 1e9)
    assert shares(run, None).decode_of_bandwidth is None
    assert shares(result.runs[0], peaks).tower_of_int8 is None, "a model that records no shape"
    machine = dataclasses.replace(result.machine, peaks=peaks)
    whole = dataclasses.replace(result, machine=machine, runs=(run,), comparisons=())
    lines = lines_of(run_sheet([whole]))
    assert lines["share of peak"] == (f"{100 * found.tower_of_int8:.0f} % in the tower",)
    assert result_to_dict(whole)["runs"][0]["shares"]["tower_of_int8"] == found.tower_of_int8


def test_many_runs_are_one_line_each(model: str) -> None:
    cases = Grid(models=[model], engines=["onnx"], answer_tokens=[8, 16, 32, 64, 128]).cases()
    sheet = run_sheet([run_grid(cases, Plan(repeat=1, loads=1, peaks=False, command=COMMAND))])
    assert len(sheet.lines) == 5
    assert all(len(line) == len(sheet.header) for line in sheet.lines)
    assert "weights" not in sheet.header  # nothing to say, so no column


def test_ratios_say_which_is_better(result: Result) -> None:
    (sheet,) = ratio_sheets(result)
    lines = lines_of(sheet)
    assert lines["decode"][2] == "0.500"
    assert lines["decode"][4] == "b is better"
    assert lines["decode_tps"][4] == "b is better"
    assert lines["vision"][4] == "no difference seen"
    assert lines["disk MiB"][2] == "1.000"


def test_markdown_is_a_table(result: Result) -> None:
    text = to_markdown(Sheet(("a|b", "c"), (("1", "2"),)))
    assert text == "| a\\|b | c |\n| --- | --- |\n| 1 | 2 |\n"
    assert to_markdown(run_sheet([result])).count("\n") == len(run_sheet([result]).lines) + 2


def test_csv_has_base_units_and_spreads(result: Result) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv([result, result]))))
    assert len(rows) == 4
    assert float(rows[0]["vision"]) == 1.2
    assert float(rows[0]["decode_q1"]) <= float(rows[0]["decode"]) <= float(rows[0]["decode_q3"])
    assert int(rows[0]["peak_rss_bytes"]) == 400 << 20


def test_the_caption_says_machine_and_date(result: Result) -> None:
    text = caption(result)
    assert result.machine.id in text
    assert result.created in text
    assert "GB/s" not in text
    peaks = Peaks(threads=2, read_bytes_per_s=2e10, buffer_bytes=1, float32_ops_per_s=1e11, int8_ops_per_s=1e12)
    measured = dataclasses.replace(result, machine=dataclasses.replace(result.machine, peaks=peaks))
    assert "read 20.0 GB/s, int8 1000 and float32 100 Gop/s" in caption(measured)


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_the_plot_is_written(result: Result, tmp_path: Path, suffix: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / f"stages{suffix}"
    plot_stages([result], file)
    assert file.read_bytes().startswith(start)
    assert file.stat().st_size > 5000


def test_other_formats_of_plots_are_refused(result: Result, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="gif"):
        plot_stages([result], tmp_path / "stages.gif")
