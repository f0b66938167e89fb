import os
from pathlib import Path

import pytest

from edge_mllm.machine import threads


def machine(root: Path, cpus: dict[int, dict[str, str]], files: dict[str, str] | None = None) -> Path:
    for cpu, attributes in cpus.items():
        for name, value in attributes.items():
            path = root / f"sys/devices/system/cpu/cpu{cpu}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(value + "\n")
    for name, value in (files or {}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)
    return root


@pytest.fixture
def allowed(monkeypatch):
    def allow(*cpus: int) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cpus), raising=False)

    return allow


def siblings(*groups: tuple[int, ...]) -> dict[int, dict[str, str]]:
    return {cpu: {"topology/thread_siblings_list": ",".join(map(str, group))} for group in groups for cpu in group}


def test_hyper_threads_count_once(tmp_path, allowed):
    allowed(0, 1, 2, 3)
    assert threads.default_threads(machine(tmp_path, siblings((0, 2), (1, 3)))) == 2


def test_affinity_limits(tmp_path, allowed):
    allowed(1)
    assert threads.default_threads(machine(tmp_path, siblings((0,), (1,), (2,)))) == 1


def test_little_cores_are_left_out(tmp_path, allowed):
    allowed(*range(8))
    capacity = [325, 325, 325, 325, 870, 870, 870, 1024]
    cpus = {
        cpu: {"cpu_capacity": str(value), "topology/thread_siblings_list": str(cpu)}
        for cpu, value in enumerate(capacity)
    }
    assert threads.default_threads(machine(tmp_path, cpus)) == 4


def test_only_little_cores_allowed(tmp_path, allowed):
    allowed(0, 1)
    cpus = {cpu: {"cpu_capacity": "325"} for cpu in range(2)}
    assert threads.default_threads(machine(tmp_path, cpus)) == 2


BOARDS = {
    # Raspberry Pi 5 (BCM2712): four Cortex-A76, no capacity file, one clock
    "pi5": ([{"cpufreq/cpuinfo_max_freq": "2400000"}] * 4, 4),
    # Raspberry Pi 4 (BCM2711): four Cortex-A72; the kernel writes equal capacities
    "pi4": ([{"cpu_capacity": "1024", "cpufreq/cpuinfo_max_freq": "1800000"}] * 4, 4),
    # Rockchip RK3588: four Cortex-A55 (capacity-dmips-mhz 530), two pairs of Cortex-A76 binned a little apart
    "rk3588": (
        [{"cpu_capacity": "414", "cpufreq/cpuinfo_max_freq": "1800000"}] * 4
        + [{"cpu_capacity": "1024", "cpufreq/cpuinfo_max_freq": "2400000"}] * 2
        + [{"cpu_capacity": "1001", "cpufreq/cpuinfo_max_freq": "2352000"}] * 2,
        4,
    ),
    # a phone's 4 + 3 + 1: the prime core must not hide the three big ones
    "phone": (
        [{"cpu_capacity": "250"}] * 4 + [{"cpu_capacity": "774"}] * 3 + [{"cpu_capacity": "1024"}],
        4,
    ),
    # the same where only clocks are told: A55 at 1.8, A78 at 2.42, X1 at 2.84 GHz. Clocks alone would count all eight;
    # a little core does less in a cycle
    "phone by its clocks": (
        [{"cpufreq/cpuinfo_max_freq": "1804800", "regs/identification/midr_el1": "0x00000000412fd050"}] * 4
        + [{"cpufreq/cpuinfo_max_freq": "2419200", "regs/identification/midr_el1": "0x00000000411fd410"}] * 3
        + [{"cpufreq/cpuinfo_max_freq": "2841600", "regs/identification/midr_el1": "0x00000000411fd440"}],
        4,
    ),
    # Rockchip RK3588 allowed its little cores alone
    "little ones alone": (
        [{"cpufreq/cpuinfo_max_freq": "1800000", "regs/identification/midr_el1": "0x00000000412fd050"}] * 4,
        4,
    ),
}


@pytest.mark.parametrize("board", BOARDS)
def test_real_boards(tmp_path, allowed, board):
    cpus, expected = BOARDS[board]
    allowed(*range(len(cpus)))
    tree = {cpu: {**files, "topology/thread_siblings_list": str(cpu)} for cpu, files in enumerate(cpus)}
    assert threads.default_threads(machine(tmp_path, tree)) == expected


def test_clock_tells_where_capacity_does_not(tmp_path, allowed):
    allowed(0, 1, 2, 3)
    cpus = {cpu: {"cpufreq/cpuinfo_max_freq": "1400000" if cpu < 2 else "2400000"} for cpu in range(4)}
    assert threads.default_threads(machine(tmp_path, cpus)) == 2


def test_no_information_counts_every_cpu(tmp_path, allowed):
    allowed(0, 1, 2)
    assert threads.default_threads(tmp_path) == 3


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        ({}, None),
    ],
)
def test_quota(tmp_path, files, expected):
    assert threads.cpu_quota(machine(tmp_path, {}, files)) == expected


def test_quota_caps_the_threads(tmp_path, allowed):
    allowed(*range(8))
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}
    assert threads.default_threads(machine(tmp_path, {}, files)) == 2


def test_this_machine_gives_at_least_one():
    assert 1 <= threads.default_threads() <= (os.cpu_count() or 1)
