"""What this machine can do and what slows it down: facts are gathered once, then judged by pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edge_mllm.machine.cpu import Processor
from edge_mllm.machine.npu import Npu, QnnLibrary
from edge_mllm.machine.others import competes
from edge_mllm.machine.rknn import RknnLibrary
from edge_mllm.machine.sensors.thermal import Thermal

Status = Literal["ok", "info", "warning", "problem"]

_LLAMA_NAMES = {
    "ssse3": "SSSE3",
    "avx": "AVX",
    "avx2": "AVX2",
    "f16c": "F16C",
    "fma": "FMA",
    "bmi2": "BMI2",
    "avx_vnni": "AVX_VNNI",
    "avx512f": "AVX512",
    "avx512vbmi": "AVX512_VBMI",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "asimd": "NEON",
    "asimdhp": "FP16_VA",
    "asimddp": "DOTPROD",
    "i8mm": "MATMUL_INT8",
    "sve": "SVE",
    "sme": "SME",
}
"""Instruction sets as /proc/cpuinfo and as llama.cpp's ``llama_print_system_info`` spell them. AMX is not among them:
a build without it loses little, and some builds with it crash, see AMX_REBUILD."""

_GRAVE = {"AVX", "AVX2", "FMA", "F16C", "NEON", "DOTPROD", "MATMUL_INT8", "AVX512", "AVX512_VNNI", "AVX_VNNI"}
"""Those that the 4-bit and 8-bit dot products are written for; without them slower code runs."""

_LOSS = "without AVX, prefill took 3.8 times as long and decoding 2.1 times on a Xeon with AVX-512 VNNI"
"""Measured by benchmarks/generic_build.py; a test compares it with the result."""
REBUILD = (
    "build it on this machine: CMAKE_ARGS='-DGGML_NATIVE=ON' "
    "pip install --force-reinstall --no-deps --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
)
AMX_REBUILD = (
    "build it on this machine, without AMX: CMAKE_ARGS=\"-DCMAKE_C_FLAGS='-mno-amx-tile -mno-amx-int8' "
    "-DCMAKE_CXX_FLAGS='-mno-amx-tile -mno-amx-int8'\" "
    "pip install --force-reinstall --no-deps --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
)
_AMX_FIXED = {11: (11, 5), 12: (12, 4), 13: (13, 3)}
"""First GCC of each major version whose ``_tile_loadconfig`` tells the compiler that it reads all 64 bytes (GCC bug
114098). Before, the stores that fill them are dropped and ``ldtilecfg`` faults on what lay there."""
_MIB = 1 << 20
_LOW_MEMORY = 1 << 30
_SLOW_GOVERNORS = {"powersave", "conservative", "ondemand", "userspace"}
_SELF_GOVERNING = ("intel_pstate", "amd-pstate", "amd_pstate")
"""Drivers whose hardware picks the clock: their 'powersave' is the balanced default and reaches full speed."""


@dataclass(frozen=True)
class LlamaBuild:
    """The installed llama.cpp."""

    version: str
    features: frozenset[str]
    """Names that its system info shows as 1."""
    repacks: bool
    gcc: tuple[int, ...] | None = None
    """Version of the GCC that compiled it, where the library says so."""

    @property
    def amx_faults(self) -> bool:
        """Whether its AMX code was compiled wrongly: every prompt over quantised weights then ends the process."""
        if self.gcc is None or "AMX_INT8" not in self.features:
            return False
        return self.gcc[:2] < _AMX_FIXED.get(self.gcc[0], (0, 0)) or self.gcc[0] < 11


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything the judgement rests on."""

    processor: Processor
    memory: dict[str, int]
    """/proc/meminfo in bytes."""
    thermal: Thermal
    others: float | None
    """Cores that other programs keep busy; None where the system does not tell."""
    environment: dict[str, str]
    """The variables that set numbers of threads."""
    llama: LlamaBuild | None
    llama_error: str | None
    """Why the installed llama.cpp cannot be loaded; None when it is absent or works."""
    onnxruntime_version: str | None
    providers: tuple[str, ...]
    extras: dict[str, tuple[str, ...]]
    """Optional feature -> distributions it lacks."""
    meters: tuple[str, ...]
    refused_meters: tuple[str, ...]
    free_disk: int | None
    npus: tuple[Npu, ...] = ()
    qnn: QnnLibrary | str = ""
    """The plug-in for Qualcomm's NPUs, or why there is none."""
    rknn: RknnLibrary | str = ""
    """The libraries for Rockchip's NPUs, or why there are none."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    status: Status
    topic: str
    detail: str
    remedy: str = ""


def parse_system_info(text: str) -> frozenset[str]:
    """Names switched on in llama.cpp's ``CPU : AVX = 1 | AVX2 = 1 | ...``."""
    found = set()
    for group in text.replace("\n", "|").split("|"):
        name, equals, value = group.rpartition(":")[2].partition("=")
        if equals and value.strip() not in ("0", ""):
            found.add(name.strip())
    return frozenset(found)


def parse_gcc(data: bytes) -> tuple[int, ...] | None:
    """Version of the GCC that left ``GCC: (...) 12.2.0`` in the bytes of an ELF file; None for other compilers."""
    mark = re.search(rb"GCC: \([^)\0]*\) (\d+)\.(\d+)\.(\d+)", data)
    return tuple(int(number) for number in mark.groups()) if mark else None


def diagnose(facts: Facts) -> list[Finding]:
    """Judge the facts; problems come first."""
    findings = [
        *_processor(facts),
        *_llama(facts),
        *_onnxruntime(facts),
        *_npus(facts),
        *_threads(facts),
        *_memory(facts),
        *_heat(facts),
        *_extras(facts),
        *_energy(facts),
    ]
    order = {"problem": 0, "warning": 1, "ok": 2, "info": 3}
    return sorted(findings, key=lambda finding: order[finding.status])


def _processor(facts: Facts) -> Iterable[Finding]:
    cpu = facts.processor
    kinds = f" ({' + '.join(map(str, cpu.clusters))} by kind)" if len(cpu.clusters) > 1 else ""
    detail = f"{cpu.model}, {cpu.physical_cores} cores{kinds}, {cpu.logical_cores} threads; {' '.join(cpu.flags)}"
    yield Finding("info", "processor", detail)
    if cpu.architecture in ("x86_64", "AMD64") and cpu.flags and "avx2" not in cpu.flags:
        yield Finding("warning", "processor", "it has no AVX2: matrix products run on slow code", "use a newer machine")
    if cpu.architecture in ("aarch64", "arm64") and cpu.flags and "asimddp" not in cpu.flags:
        detail = "it has no dot-product instructions (asimddp): 8-bit products run on slow code"
        yield Finding("warning", "processor", detail, "use a core from Cortex-A55 / A76 (2018) on")
    if cpu.governor in _SLOW_GOVERNORS and not (cpu.frequency_driver or "").startswith(_SELF_GOVERNING):
        status: Status = "info" if cpu.governor == "ondemand" else "warning"
        remedy = "sudo cpupower frequency-set -g performance"
        yield Finding(status, "governor", f"'{cpu.governor}' lowers the clock between tokens", remedy)
    elif cpu.governor:
        yield Finding("ok", "governor", f"'{cpu.governor}' ({cpu.frequency_driver or 'unknown driver'})")


def missing_instructions(processor: Processor, llama: LlamaBuild) -> tuple[str, ...]:
    """Instruction sets this processor has and this llama.cpp build does not use, in llama.cpp's spelling."""
    return tuple(name for flag, name in _LLAMA_NAMES.items() if flag in processor.flags and name not in llama.features)


def _rebuild(processor: Processor) -> str:
    """How to build llama.cpp for this processor: never so that AMX_REBUILD would be the next advice."""
    return AMX_REBUILD if "amx_int8" in processor.flags else REBUILD


def _llama(facts: Facts) -> Iterable[Finding]:
    if facts.llama_error:
        detail = f"it is installed but does not load: {facts.llama_error}"
        yield Finding("problem", "llama.cpp", detail, _rebuild(facts.processor))
        return
    if facts.llama is None:
        detail = "not installed; bundles run on the ONNX engine"
        yield Finding("info", "llama.cpp", detail, "for the GGUF engine: pip install 'edge-mllm[gguf]'")
        return
    if facts.llama.amx_faults:
        compiler = ".".join(map(str, facts.llama.gcc or ()))
        detail = (
            f"llama-cpp-python {facts.llama.version} ends the process on every prompt over 4-bit or 8-bit weights: "
            f"GCC {compiler} compiled its AMX code wrongly"
        )
        yield Finding("problem", "llama.cpp", detail, AMX_REBUILD)
    missing = missing_instructions(facts.processor, facts.llama)
    grave = [name for name in missing if name in _GRAVE]
    name = f"llama-cpp-python {facts.llama.version}"
    if grave:
        detail = (
            f"{name} was built without {', '.join(missing)}, which this processor has: the dot products of quantised "
            f"weights run on slower code ({_LOSS if 'AVX' in grave else 'prefill suffers most'})"
        )
        yield Finding("problem", "llama.cpp", detail, _rebuild(facts.processor))
    elif missing:
        detail = f"{name} was built without {', '.join(missing)}"
        yield Finding("warning", "llama.cpp", detail, _rebuild(facts.processor))
    else:
        yield Finding("ok", "llama.cpp", f"{name} uses every instruction set of this processor that it knows")
    if not facts.llama.repacks:
        detail = f"{name} was built without repacking: 4-bit weights are not laid out for the wide instructions"
        remedy = _rebuild(facts.processor).replace("-D", "-DGGML_CPU_REPACK=ON -D", 1)
        yield Finding("warning", "llama.cpp", detail, remedy)


def _onnxruntime(facts: Facts) -> Iterable[Finding]:
    if facts.onnxruntime_version is None:
        yield Finding("problem", "onnxruntime", "it cannot be imported", "pip install --force-reinstall onnxruntime")
        return
    others = [p for p in facts.providers if p not in ("CPUExecutionProvider", "AzureExecutionProvider")]
    names = ", ".join(provider.removesuffix("ExecutionProvider") for provider in facts.providers)
    yield Finding("ok", "onnxruntime", f"{facts.onnxruntime_version}; providers: {names}")
    if others:
        yield Finding("info", "accelerators", f"found: {', '.join(others)}")
    else:
        yield Finding("info", "accelerators", "no NPU or GPU provider in ONNX Runtime itself")


def _npus(facts: Facts) -> Iterable[Finding]:
    """NPUs and whether a tower can run on them."""
    for npu in facts.npus:
        if npu.kind == "rockchip":
            yield _rockchip(npu, facts.rknn)
        elif npu.kind != "hexagon":
            yield Finding(
                "info", "NPU", f"found: {npu.label}; no bundle has a tower for it, the processor does the work"
            )
        elif not npu.architecture:
            detail = f"found: {npu.label}; its architecture is not known here"
            yield Finding("warning", "NPU", detail, "name it when you run: edge-mllm run --provider qnn:vNN")
        elif isinstance(facts.qnn, QnnLibrary):
            detail = f"{npu.label}, onnxruntime-qnn {facts.qnn.version} (QNN {facts.qnn.sdk})"
            yield Finding(
                "ok", "NPU", detail, f"for a tower on it: edge-mllm export --target qnn-htp:{npu.architecture}"
            )
        else:
            what, _, remedy = facts.qnn.partition("; type: ")
            yield Finding("info", "NPU", f"found: {npu.label}; {what}", remedy)
    if not facts.npus and isinstance(facts.qnn, QnnLibrary):
        detail = f"none found; onnxruntime-qnn {facts.qnn.version} (QNN {facts.qnn.sdk}) can compile for Hexagon"
        yield Finding("info", "NPU", detail)
    elif not facts.npus:
        yield Finding("info", "NPU", "none found; the processor does all the work")


def _rockchip(npu: Npu, library: RknnLibrary | str) -> Finding:
    if isinstance(library, RknnLibrary):
        detail = f"{npu.label}, librknnrt.so {library.runtime}, rknn-toolkit-lite2 {library.version}"
        remedy = f"for a tower on it: edge-mllm export --target rknn:{npu.architecture}"
        return Finding("ok", "NPU", detail, remedy)
    what, _, remedy = library.partition("; type: ")
    return Finding("info", "NPU", f"found: {npu.label}; {what}", remedy)


def _threads(facts: Facts) -> Iterable[Finding]:
    cpu = facts.processor
    sensible = cpu.sensible_threads
    for name, value in sorted(facts.environment.items()):
        if value.isdigit() and int(value) > sensible:
            detail = f"{name}={value}, but {sensible} is what this processor does matrix products with"
            yield Finding("warning", "threads", detail, f"unset {name} or set it to {sensible}")
    if cpu.quota_cores is not None and cpu.quota_cores < cpu.physical_cores:
        detail = f"a container limit allows {cpu.quota_cores:g} of {cpu.physical_cores} cores"
        yield Finding("warning", "threads", detail, f"raise the limit, or use {sensible} threads")
    if facts.others is not None and competes(facts.others, cpu.usable_cores):
        detail = f"other programs keep {facts.others:.1f} of {cpu.usable_cores} cores busy"
        yield Finding("warning", "threads", detail, "stop them before measuring")
    yield Finding("info", "threads", f"{sensible} threads suit this processor")


def _memory(facts: Facts) -> Iterable[Finding]:
    memory = facts.memory
    if "MemTotal" not in memory:
        return
    total, available = memory["MemTotal"], memory.get("MemAvailable", memory["MemTotal"])
    if available < _LOW_MEMORY:
        detail = f"{available // _MIB} MiB of {total // _MIB} MiB are available"
        yield Finding("warning", "memory", detail, "close programs, or take a smaller model: edge-mllm plan MODEL")
    else:
        yield Finding("ok", "memory", f"{available / (1 << 30):.1f} of {total / (1 << 30):.1f} GiB are available")
    used = memory.get("SwapTotal", 0) - memory.get("SwapFree", 0)
    if used > 64 * _MIB:
        detail = f"{used // _MIB} MiB are swapped out: weights that are read back from disk cost seconds a token"
        yield Finding("warning", "swap", detail, "close programs until nothing is swapped")
    if facts.free_disk is not None and facts.free_disk < _LOW_MEMORY:
        yield Finding("warning", "disk", f"{facts.free_disk // _MIB} MiB are free here", "make room for bundles")


def _heat(facts: Facts) -> Iterable[Finding]:
    heat = facts.thermal
    for name in heat.firmware:
        remedy = "use the board's own power supply" if "voltage" in name else "add a heat sink or a fan"
        yield Finding("problem", "heat", f"the board's firmware reports: {name}", remedy)
    for name in heat.cooling:
        yield Finding(
            "problem", "heat", f"the kernel is holding the processor back: {name}", "add a heat sink or a fan"
        )
    if heat.celsius is not None and heat.celsius >= 80:
        yield Finding("warning", "heat", f"{heat.celsius:.0f} degrees Celsius", "let it cool before measuring")
    elif heat.celsius is not None and not heat.firmware and not heat.cooling:
        yield Finding("ok", "heat", f"{heat.celsius:.0f} degrees Celsius, not held back")


def _extras(facts: Facts) -> Iterable[Finding]:
    for extra, missing in sorted(facts.extras.items()):
        if missing:
            remedy = f"pip install 'edge-mllm[{extra}]'"
            yield Finding("info", "extras", f"[{extra}] lacks {', '.join(missing)}", remedy)
    complete = sorted(extra for extra, missing in facts.extras.items() if not missing)
    if complete:
        yield Finding("ok", "extras", f"installed: {', '.join(complete)}")


def _energy(facts: Facts) -> Iterable[Finding]:
    for refusal in facts.refused_meters:
        what, _, remedy = refusal.partition("; type: ")
        yield Finding("info", "energy", what, remedy)
    if facts.meters:
        yield Finding("ok", "energy", f"can be measured: {', '.join(facts.meters)}")
    elif not facts.refused_meters:
        yield Finding("info", "energy", "this machine shows no energy or power sensor")
