"""Whether the installed llama.cpp was built for this processor, and how to build it so."""

from __future__ import annotations

from collections.abc import Iterable

from edge_mllm.machine.cpu import Processor
from edge_mllm.measure.doctor.facts import Facts, Finding, LlamaBuild

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


def missing_instructions(processor: Processor, llama: LlamaBuild) -> tuple[str, ...]:
    """Instruction sets this processor has and this llama.cpp build does not use, in llama.cpp's spelling."""
    return tuple(name for flag, name in _LLAMA_NAMES.items() if flag in processor.flags and name not in llama.features)


def _rebuild(processor: Processor) -> str:
    """How to build llama.cpp for this processor: never so that AMX_REBUILD would be the next advice."""
    return AMX_REBUILD if "amx_int8" in processor.flags else REBUILD


def llama_findings(facts: Facts) -> Iterable[Finding]:
    """What is to say of llama.cpp."""
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
