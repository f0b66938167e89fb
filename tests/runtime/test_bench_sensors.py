"""Energy, temperature and memory, read from directories laid out like /sys and /proc."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

import numpy as np
import pytest

from edge_mllm.machine.memory import peak_rss_bytes
from edge_mllm.machine.sensors.energy import EnergyRecorder, find_meters, integrate
from edge_mllm.machine.sensors.thermal import decode_firmware, read_thermal, throttling
from edge_mllm.measure.bench.memory import reset_peak, resident


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def test_rapl_counts_the_package_and_survives_a_wrap(tmp_path: Path) -> None:
    zone = "class/powercap/intel-rapl:0"
    core = "class/powercap/intel-rapl:0:0"
    files = {f"{zone}/name": "package-0", f"{zone}/energy_uj": "9000000", f"{zone}/max_energy_range_uj": "10000000"}
    write(tmp_path, {**files, f"{core}/name": "core", f"{core}/energy_uj": "5"})
    meters = find_meters(tmp_path)
    assert [(m.scope, m.counts) for m in meters.usable] == [("package", True)]
    with EnergyRecorder(meters.usable) as recorder:
        write(tmp_path, {f"{zone}/energy_uj": "2500000"})
    assert recorder.readings[0].joules == pytest.approx(3.5)


def test_a_sensor_that_shows_current_and_voltage_is_integrated(tmp_path: Path) -> None:
    chip = "class/hwmon/hwmon2"
    write(tmp_path, {f"{chip}/name": "ina3221", f"{chip}/curr1_input": "2000", f"{chip}/in1_input": "5000"})
    with EnergyRecorder(find_meters(tmp_path).usable, sample_seconds=0.01) as recorder:
        time.sleep(0.5)
    reading = recorder.readings[0]
    assert reading.scope == "board"
    assert reading.samples > 5
    assert 5.0 < reading.joules / reading.seconds <= 10.0001  # 2 A at 5 V, from the first sample to the last


@pytest.mark.parametrize(("status", "count"), [("Discharging", 1), ("Charging", 0)])
def test_only_a_battery_that_is_drained_counts(tmp_path: Path, status: str, count: int) -> None:
    battery = "class/power_supply/BAT0"
    files = {"type": "Battery", "status": status, "current_now": "-1500000", "voltage_now": "4000000"}
    write(tmp_path, {f"{battery}/{name}": text for name, text in files.items()})
    meters = find_meters(tmp_path).usable
    assert len(meters) == count
    assert all(m.read() == pytest.approx(6.0) for m in meters)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_meter_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    zone = write(
        tmp_path, {"class/powercap/intel-rapl:0/name": "package-0", "class/powercap/intel-rapl:0/energy_uj": "1"}
    )
    (zone / "class/powercap/intel-rapl:0/energy_uj").chmod(0)
    meters = find_meters(tmp_path)
    assert not meters.usable
    assert "root" in meters.refused[0]


def test_a_broken_meter_is_refused_with_its_name(tmp_path: Path) -> None:
    write(tmp_path, {"class/powercap/intel-rapl:0/name": "package-0", "class/powercap/intel-rapl:0/energy_uj": "no"})
    meters = find_meters(tmp_path)
    assert not meters.usable
    assert "package-0" in meters.refused[0]


def test_integration_is_the_trapezoid_rule() -> None:
    assert integrate([(0.0, 2.0), (1.0, 4.0), (3.0, 4.0)]) == pytest.approx(11.0)
    assert integrate([(0.0, 2.0)]) == 0.0


def test_throttling_is_seen_between_two_moments(tmp_path: Path) -> None:
    counter = "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    zone, cooler = "class/thermal/thermal_zone0", "class/thermal/cooling_device0"
    write(
        tmp_path, {counter: "3", f"{zone}/temp": "61500", f"{cooler}/type": "cpufreq-cpu0", f"{cooler}/cur_state": "0"}
    )
    before = read_thermal(tmp_path)
    assert before.celsius == 61.5
    assert throttling(before, before) == ()
    write(tmp_path, {counter: "5", f"{cooler}/cur_state": "2"})
    assert throttling(before, read_thermal(tmp_path)) == ("2 thermal throttle events", "cooling: cpufreq-cpu0 at 2")


def test_a_fan_is_not_throttling(tmp_path: Path) -> None:
    cooler = "class/thermal/cooling_device0"
    write(tmp_path, {f"{cooler}/type": "pwm-fan", f"{cooler}/cur_state": "3"})
    state = read_thermal(tmp_path)
    assert throttling(state, state) == ()


def test_the_firmware_of_a_board_names_its_troubles(tmp_path: Path) -> None:
    write(tmp_path, {"devices/platform/soc/soc:firmware/get_throttled": "50005"})
    assert read_thermal(tmp_path).firmware == ("under-voltage", "throttled")
    assert decode_firmware(0x50000) == ()


def test_a_machine_that_tells_nothing_gives_none(tmp_path: Path) -> None:
    state = read_thermal(tmp_path)
    assert (state.celsius, state.throttle_events, state.clock_mhz) == (None, None, None)
    assert find_meters(tmp_path).usable == ()


def test_resident_memory_tells_own_pages_from_mapped_files(tmp_path: Path) -> None:
    size = 32 << 20
    (tmp_path / "weights").write_bytes(b"\1" * size)
    start = resident()
    mapped = np.memmap(tmp_path / "weights", dtype=np.uint8, mode="r")
    assert int(mapped.max()) == 1
    with_file = resident()
    # Fresh pages: numpy may take memory that an earlier test gave back to the allocator.
    own = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    own.write(b"\1" * size)
    with_own = resident()
    assert start.file is not None and with_file.file is not None
    assert with_file.anonymous is not None and with_own.anonymous is not None
    assert with_file.file - start.file == pytest.approx(size, rel=0.2)
    assert with_own.anonymous - with_file.anonymous == pytest.approx(len(own), rel=0.2)


def test_the_status_file_is_read_where_the_exact_one_is_hidden(tmp_path: Path) -> None:
    write(tmp_path, {"status": "VmHWM:\t 900 kB\nVmRSS:\t 800 kB\nRssAnon:\t 500 kB\nVmSwap:\t 1 kB"})
    found = resident(tmp_path)
    assert (found.rss, found.anonymous, found.file, found.swapped) == (819200, 512000, 307200, 1024)


def test_the_peak_starts_again() -> None:
    block = np.ones(64 << 20, dtype=np.uint8)
    high = peak_rss_bytes()
    del block
    if not reset_peak():
        pytest.skip("this system does not allow it")
    low = peak_rss_bytes()
    assert high is not None and low is not None
    assert low < high - (32 << 20)
