"""Diagnoses of machines that are not this one, from facts as such machines show them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from edge_mllm.machine.cpu import Processor
from edge_mllm.machine.npu import Npu, QnnLibrary
from edge_mllm.machine.rknn import RknnLibrary
from edge_mllm.machine.sensors.thermal import Thermal
from edge_mllm.measure.doctor.diagnosis import diagnose
from edge_mllm.measure.doctor.facts import Facts, Finding, LlamaBuild, parse_gcc, parse_system_info
from edge_mllm.measure.doctor.gathering import gather_facts, missing_by_extra
from edge_mllm.measure.doctor.llama_cpp import missing_instructions

GIB = 1 << 30
RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "generic_build.json"
NATIVE = (
    "CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | BMI2 = 1 | AVX512 = 1 | AVX512_VBMI = 1 "
    "| AVX512_VNNI = 1 | AVX512_BF16 = 1 | LLAMAFILE = 1 | OPENMP = 1 | REPACK = 1 | "
)
GENERIC = "CPU : SSE3 = 1 | SSSE3 = 1 | LLAMAFILE = 1 | OPENMP = 1 | REPACK = 1 | "
X86 = Processor(
    model="AMD EPYC",
    architecture="x86_64",
    logical_cores=8,
    physical_cores=4,
    usable_cores=8,
    quota_cores=None,
    clusters=(4,),
    flags=("ssse3", "avx", "avx2", "fma", "f16c", "bmi2", "avx512f", "avx512vbmi", "avx512_vnni", "avx512_bf16"),
    governor="performance",
    frequency_driver="acpi-cpufreq",
    sensible_threads=4,
)
BOARD = dataclasses.replace(
    X86, model="Raspberry Pi 5", architecture="aarch64", flags=("asimd", "asimdhp", "asimddp"), logical_cores=4
)
COOL = Thermal(celsius=45.0, throttle_events=0, clock_mhz=3000.0, max_clock_mhz=3000.0, cooling=(), firmware=())


def build(text: str) -> LlamaBuild:
    features = parse_system_info(text)
    return LlamaBuild("0.3.36", features, "REPACK" in features)


def facts(**changes: Any) -> Facts:
    healthy = Facts(
        processor=X86,
        memory={"MemTotal": 16 * GIB, "MemAvailable": 12 * GIB, "SwapTotal": 0, "SwapFree": 0},
        thermal=COOL,
        others=0.2,
        environment={},
        llama=build(NATIVE),
        llama_error=None,
        onnxruntime_version="1.31.1",
        providers=("CPUExecutionProvider",),
        extras={"gguf": (), "bench": ()},
        meters=("rapl/intel-rapl:0/package-0",),
        refused_meters=(),
        free_disk=50 * GIB,
    )
    return dataclasses.replace(healthy, **changes)


def troubles(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.status in ("warning", "problem")]


def test_a_healthy_machine_has_no_troubles() -> None:
    assert troubles(diagnose(facts())) == []


def test_system_info_is_parsed() -> None:
    features = parse_system_info(NATIVE + "MTL : EMBED_LIBRARY = 1 | CPU : SVE_CNT = 16 | SME = 0 | ")
    assert {"SSE3", "AVX512_VNNI", "REPACK", "EMBED_LIBRARY", "SVE_CNT"} <= features
    assert "SME" not in features


def test_a_generic_build_is_a_problem_with_a_remedy() -> None:
    found = troubles(diagnose(facts(llama=build(GENERIC))))
    assert [(f.status, f.topic) for f in found] == [("problem", "llama.cpp")]
    assert "AVX2" in found[0].detail
    assert "AVX512_VNNI" in found[0].detail
    assert "GGML_NATIVE=ON" in found[0].remedy


def test_a_processor_with_amx_is_not_advised_to_build_for_it() -> None:
    """The native build of some compilers ends the process there."""
    with_amx = dataclasses.replace(X86, flags=(*X86.flags, "amx_tile", "amx_int8"))
    found = troubles(diagnose(facts(processor=with_amx, llama=build(GENERIC))))
    assert "-mno-amx-int8" in found[0].remedy
    broken = troubles(diagnose(facts(processor=with_amx, llama=None, llama_error="undefined symbol")))
    assert "-mno-amx-int8" in broken[0].remedy
    bare = troubles(diagnose(facts(processor=with_amx, llama=build(NATIVE.replace("REPACK = 1 | ", "")))))
    assert "'-mno-amx-tile -mno-amx-int8'" in bare[0].remedy
    assert "-DGGML_CPU_REPACK=ON" in bare[0].remedy


def test_the_loss_that_is_told_was_measured() -> None:
    measured = json.loads(RESULT.read_text())
    ratios = {speed: f"{ratio:.1f}" for speed, ratio in measured["native_over_generic"].items()}
    (found,) = troubles(diagnose(facts(llama=build(GENERIC))))
    assert (
        f"prefill took {ratios['prefill_tps']} times as long and decoding {ratios['decode_tps']} times" in found.detail
    )
    assert "AVX2" not in measured["builds"]["generic"]["features"]
    assert "AVX2" in measured["builds"]["native"]["features"]


def test_a_generic_build_on_a_board_lacks_the_dot_product() -> None:
    generic = build("CPU : NEON = 1 | ARM_FMA = 1 | LLAMAFILE = 1 | REPACK = 1 | ")
    assert missing_instructions(BOARD, generic) == ("FP16_VA", "DOTPROD")
    found = troubles(diagnose(facts(processor=BOARD, llama=generic)))
    assert [f.status for f in found] == ["problem"]


def test_what_the_processor_lacks_is_not_held_against_the_build() -> None:
    assert missing_instructions(BOARD, build("CPU : NEON = 1 | FP16_VA = 1 | DOTPROD = 1 | ")) == ()


def test_a_small_loss_is_a_warning() -> None:
    found = troubles(diagnose(facts(llama=build(NATIVE.replace("AVX512_BF16 = 1 | ", "")))))
    assert [(f.status, f.topic) for f in found] == [("warning", "llama.cpp")]


def test_a_build_without_repacking_is_named() -> None:
    found = troubles(diagnose(facts(llama=build(NATIVE.replace("REPACK = 1 | ", "")))))
    assert len(found) == 1
    assert "repack" in found[0].detail


@pytest.mark.parametrize(
    ("gcc", "faults"),
    [
        ((12, 2, 0), True),
        ((12, 4, 0), False),
        ((13, 2, 0), True),
        ((13, 3, 0), False),
        ((14, 1, 0), False),
        (None, False),
    ],
)
def test_a_build_whose_amx_code_faults_is_a_problem(gcc: tuple[int, ...] | None, faults: bool) -> None:
    llama = dataclasses.replace(build(NATIVE + "AMX_INT8 = 1 | "), gcc=gcc)
    found = troubles(diagnose(facts(llama=llama)))
    assert [f.status for f in found] == (["problem"] if faults else [])
    if faults:
        assert "12.2.0" in found[0].detail or "13.2.0" in found[0].detail
        assert "-mno-amx-int8" in found[0].remedy


def test_a_build_without_amx_cannot_fault_and_lacks_nothing() -> None:
    processor = dataclasses.replace(X86, flags=(*X86.flags, "amx_tile", "amx_int8"))
    llama = dataclasses.replace(build(NATIVE), gcc=(12, 2, 0))
    assert troubles(diagnose(facts(processor=processor, llama=llama))) == []


def test_the_compiler_is_read_from_the_library() -> None:
    assert parse_gcc(b"\x7fELF..\0GCC: (Debian 12.2.0-14+deb12u1) 12.2.0\0..") == (12, 2, 0)
    assert parse_gcc(b"\x7fELF..\0clang version 17.0.6\0") is None


def test_without_llama_cpp_the_extra_is_offered_and_nothing_is_wrong() -> None:
    found = diagnose(facts(llama=None))
    assert troubles(found) == []
    assert any("edge-mllm[gguf]" in f.remedy for f in found)


def test_a_library_that_does_not_load_comes_first() -> None:
    found = diagnose(facts(llama=None, llama_error="libgomp.so.1: cannot open shared object file"))
    assert (found[0].status, found[0].topic) == ("problem", "llama.cpp")
    assert "libgomp" in found[0].detail


@pytest.mark.parametrize(
    ("governor", "driver", "status"),
    [
        ("powersave", "cpufreq-dt", "warning"),
        ("powersave", "intel_pstate", "ok"),
        ("ondemand", "cpufreq-dt", "info"),
        ("performance", "cpufreq-dt", "ok"),
    ],
)
def test_governors(governor: str, driver: str, status: str) -> None:
    processor = dataclasses.replace(X86, governor=governor, frequency_driver=driver)
    found = [f for f in diagnose(facts(processor=processor)) if f.topic == "governor"]
    assert [f.status for f in found] == [status]


@pytest.mark.parametrize(
    ("changes", "topic", "words"),
    [
        ({"environment": {"OMP_NUM_THREADS": "8"}}, "threads", "OMP_NUM_THREADS=8"),
        ({"others": 1.5}, "threads", "keep 1.5 of"),
        ({"processor": dataclasses.replace(X86, quota_cores=1.5)}, "threads", "1.5 of 4"),
        ({"memory": {"MemTotal": GIB, "MemAvailable": GIB // 4}}, "memory", "256 MiB"),
        ({"memory": {"MemTotal": 8 * GIB, "SwapTotal": GIB, "SwapFree": 0}}, "swap", "1024 MiB"),
        ({"free_disk": 100 << 20}, "disk", "100 MiB"),
        ({"thermal": dataclasses.replace(COOL, celsius=91.0)}, "heat", "91"),
        ({"thermal": dataclasses.replace(COOL, firmware=("under-voltage",))}, "heat", "under-voltage"),
        ({"thermal": dataclasses.replace(COOL, cooling=("cpufreq-cpu0 at 3",))}, "heat", "cpufreq-cpu0"),
        ({"onnxruntime_version": None}, "onnxruntime", "imported"),
        ({"processor": dataclasses.replace(X86, flags=("ssse3",))}, "processor", "AVX2"),
    ],
)
def test_each_trouble_is_one_line_with_a_remedy(changes: dict[str, Any], topic: str, words: str) -> None:
    found = troubles(diagnose(facts(**changes)))
    assert [f.topic for f in found] == [topic]
    assert words in found[0].detail
    assert found[0].remedy


def test_missing_extras_and_accelerators_are_said() -> None:
    found = diagnose(
        facts(extras={"bench": ("matplotlib",)}, providers=("QNNExecutionProvider", "CPUExecutionProvider"))
    )
    assert any(f.topic == "extras" and "matplotlib" in f.detail and "edge-mllm[bench]" in f.remedy for f in found)
    assert any(f.topic == "accelerators" and "QNN" in f.detail for f in found)


def test_npus_are_told_with_what_runs_on_them() -> None:
    library = QnnLibrary("2.7.0", "2.51.0", Path("a.so"), Path("b.so"))
    phone, odd, board = (
        Npu("hexagon", "SM8650", "v75"),
        Npu("hexagon", "chip 9999", ""),
        Npu("rockchip", "RK3588", "rk3588"),
    )
    found = [each for each in diagnose(facts(npus=(phone, odd, board), qnn=library)) if each.topic == "NPU"]
    assert [each.status for each in found] == ["warning", "ok", "info"]
    (ready,) = (
        each for each in diagnose(facts(npus=(board,), rknn=RknnLibrary("2.5.0", "2.5.1"))) if each.topic == "NPU"
    )
    assert (ready.status, ready.detail) == ("ok", "RK3588, librknnrt.so 2.5.1, rknn-toolkit-lite2 2.5.0")
    assert "--target rknn:rk3588" in ready.remedy
    assert "--target qnn-htp:v75" in found[1].remedy and "QNN 2.51.0" in found[1].detail
    (bare,) = [
        each for each in diagnose(facts(npus=(phone,), qnn="it is not installed; type: pip x")) if each.topic == "NPU"
    ]
    assert bare.remedy == "pip x"
    (none,) = [each for each in diagnose(facts()) if each.topic == "NPU"]
    assert "none found" in none.detail


def test_a_refused_meter_is_told_with_the_command() -> None:
    found = diagnose(facts(meters=(), refused_meters=("rapl: readable by root only; type: sudo chmod a+r FILE",)))
    energy = [f for f in found if f.topic == "energy"]
    assert [(f.detail, f.remedy) for f in energy] == [("rapl: readable by root only", "sudo chmod a+r FILE")]


def test_extras_are_read_from_the_requirements() -> None:
    requirements = [
        "numpy>=1.26",
        "pytest>=8; extra == 'dev'",
        "no-such-distribution-here>=1 ; extra == 'dev'",
        "edge-mllm[dev]; extra == 'all'",
    ]
    assert missing_by_extra(requirements) == {"dev": ("no-such-distribution-here",)}


def test_this_machine_is_looked_at() -> None:
    found = diagnose(gather_facts())
    assert {"processor", "onnxruntime", "memory", "threads"} <= {f.topic for f in found}
