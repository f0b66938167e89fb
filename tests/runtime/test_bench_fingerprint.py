from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from edge_mllm.machine.cpu import parse_cpuinfo, read_processor
from edge_mllm.machine.fingerprint import fingerprint, model_files
from edge_mllm.machine.memory import sizes
from edge_mllm.machine.peaks import measure_peaks

ROOT = Path(__file__).resolve().parents[2]

RASPBERRY = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b

processor\t: 1
CPU implementer\t: 0x41
CPU part\t: 0xd0b
"""


def fake_cores(root: Path, capacities: list[int], siblings: list[str] | None = None) -> Path:
    for number, capacity in enumerate(capacities):
        cpu = root / f"sys/devices/system/cpu/cpu{number}"
        (cpu / "topology").mkdir(parents=True)
        (cpu / "cpu_capacity").write_text(f"{capacity}\n")
        (cpu / "topology/thread_siblings_list").write_text(siblings[number] if siblings else str(number))
    return root


def test_an_arm_board_is_named_by_its_cores() -> None:
    info = parse_cpuinfo(RASPBERRY)
    assert info.model == "2x Cortex-A76"
    assert {"asimddp", "asimdhp"} <= info.flags
    assert "i8mm" not in info.flags


def test_an_x86_model_name_is_taken_as_it_is() -> None:
    info = parse_cpuinfo("processor : 0\nmodel name\t: AMD EPYC 9555\nflags\t\t: fpu avx2 avx512_vnni\n")
    assert (info.model, info.flags) == ("AMD EPYC 9555", frozenset({"fpu", "avx2", "avx512_vnni"}))


def test_big_and_little_cores_are_told_apart(tmp_path: Path) -> None:
    processor = read_processor(fake_cores(tmp_path, [462, 462, 462, 462, 1024, 1024, 980, 980]))
    assert processor.clusters == (4, 4)


def test_hyperthreads_are_not_cores(tmp_path: Path) -> None:
    processor = read_processor(fake_cores(tmp_path, [1024] * 4, ["0,2", "1,3", "0,2", "1,3"]))
    assert (processor.physical_cores, processor.clusters) == (2, (2,))


def test_sizes_are_in_bytes_and_counts_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  16 kB\nHugePages_Total:   3\nName:\ta kB\nVmRSS:\t    7 kB\n")
    assert sizes(tmp_path / "meminfo") == {"MemTotal": 16384, "VmRSS": 7168}
    assert sizes(tmp_path / "none") == {}


def test_this_machine_has_a_fingerprint() -> None:
    machine = fingerprint(peaks=False)
    assert machine.id == fingerprint(peaks=False).id
    assert len(machine.id) == 12
    assert machine.memory_bytes > 1 << 28
    assert "onnxruntime" in machine.versions
    assert machine.peaks is None


def test_peaks_are_plausible() -> None:
    peaks = measure_peaks(1, seconds=0.3, buffer_bytes=64 << 20)
    assert 1e8 < peaks.read_bytes_per_s < 1e13
    assert 1e8 < peaks.float32_ops_per_s < 1e14
    assert 1e8 < peaks.int8_ops_per_s < 1e15


def test_a_bundle_is_known_by_its_description(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text("{}")
    (tmp_path / "vision.onnx").write_bytes(b"abc")
    files = model_files(tmp_path)
    assert files.sha256 == hashlib.sha256(b"{}").hexdigest()
    assert files.bytes_on_disk == 5
    assert files.files == {"bundle.json": 2, "vision.onnx": 3}


def test_other_layouts_are_known_by_their_contents(tmp_path: Path) -> None:
    (tmp_path / "decoder.gguf").write_bytes(b"abc")
    first = model_files(tmp_path).sha256
    (tmp_path / "decoder.gguf").write_bytes(b"abd")
    assert model_files(tmp_path).sha256 != first


def test_the_kernels_that_ship_are_those_the_script_writes(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    subprocess.run([sys.executable, str(ROOT / "benchmarks/make_kernels.py"), str(tmp_path)], check=True)
    for made in tmp_path.glob("*.onnx"):
        assert made.read_bytes() == (ROOT / "edge_mllm/machine/kernels" / made.name).read_bytes()
    assert len(list(tmp_path.glob("*.onnx"))) == 2
