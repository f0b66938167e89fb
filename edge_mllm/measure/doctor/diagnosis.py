"""Judges a machine from its facts: what it can do, what slows it down, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable

from edge_mllm.machine.others import competes
from edge_mllm.measure.doctor.facts import Facts, Finding, Status
from edge_mllm.measure.doctor.llama_cpp import llama_findings
from edge_mllm.measure.doctor.npus import npu_findings

_MIB = 1 << 20
_LOW_MEMORY = 1 << 30
_SLOW_GOVERNORS = {"powersave", "conservative", "ondemand", "userspace"}
_SELF_GOVERNING = ("intel_pstate", "amd-pstate", "amd_pstate")
"""Drivers whose hardware picks the clock: their 'powersave' is the balanced default and reaches full speed."""


def diagnose(facts: Facts) -> list[Finding]:
    """Judge the facts; problems come first."""
    findings = [
        *_processor(facts),
        *llama_findings(facts),
        *_onnxruntime(facts),
        *npu_findings(facts),
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
