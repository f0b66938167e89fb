"""Gathers what :mod:`edge_mllm.measure.doctor` judges, within a second or two and without changing anything."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
from importlib import metadata
from pathlib import Path

from edge_mllm.errors import ExtraMissingError
from edge_mllm.machine.cpu import read_processor
from edge_mllm.machine.memory import MEMORY, sizes
from edge_mllm.machine.npu import NpuError, QnnLibrary, find_npus, qnn_library
from edge_mllm.machine.others import others_now
from edge_mllm.machine.rknn import RknnLibrary, rknn_library
from edge_mllm.machine.sensors.energy import find_meters
from edge_mllm.machine.sensors.thermal import read_thermal
from edge_mllm.measure.doctor.facts import Facts, LlamaBuild, parse_gcc, parse_system_info

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_DISTRIBUTION = "edge-mllm"


def gather_facts() -> Facts:
    """Look at this machine and at the packages that are installed."""
    llama, llama_error = _llama_build()
    version, providers = _onnxruntime()
    meters = find_meters()
    return Facts(
        processor=read_processor(),
        memory=sizes(MEMORY),
        thermal=read_thermal(),
        others=others_now(),
        environment={name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ},
        llama=llama,
        llama_error=llama_error,
        onnxruntime_version=version,
        providers=providers,
        extras=missing_by_extra(metadata.requires(_DISTRIBUTION) or []),
        meters=tuple(meter.name for meter in meters.usable),
        refused_meters=meters.refused,
        free_disk=shutil.disk_usage(Path.cwd()).free,
        npus=find_npus(),
        qnn=_qnn(),
        rknn=_rknn(),
    )


def missing_by_extra(requirements: list[str]) -> dict[str, tuple[str, ...]]:
    """Extra -> distributions that are not installed, from a distribution's own requirement strings.

    Args:
        requirements: such as ``matplotlib>=3.8; extra == 'bench'``; those without an extra, and those for another kind
            of machine, are skipped.
    """
    missing: dict[str, list[str]] = {}
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        name = re.match(r"[\w.-]+", requirement)
        machine = re.search(r"platform_machine\s*==\s*['\"](\w+)['\"]", requirement)
        if extra is None or name is None or name.group() == _DISTRIBUTION:
            continue
        if machine is not None and machine.group(1) != platform.machine():
            continue
        lacking = missing.setdefault(extra.group(1), [])
        try:
            metadata.distribution(name.group())
        except metadata.PackageNotFoundError:
            lacking.append(name.group())
    return {extra: tuple(names) for extra, names in missing.items()}


def _llama_build() -> tuple[LlamaBuild | None, str | None]:
    """The build, or None and why it does not load (None again when it is not installed)."""
    try:
        version = metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:
        return None, None
    try:
        llama_cpp = importlib.import_module("llama_cpp")
        features = parse_system_info(llama_cpp.llama_print_system_info().decode(errors="replace"))
    except Exception as error:  # a broken native library raises whatever its loader raises
        return None, " ".join(str(error).split())
    return LlamaBuild(version, features, "REPACK" in features, _compiler(Path(str(llama_cpp.__file__)).parent)), None


def _compiler(package: Path) -> tuple[int, ...] | None:
    """GCC version in the comment section of the library with the processor's kernels."""
    for library in sorted(package.rglob("libggml-cpu*.so*")):
        return parse_gcc(library.read_bytes())
    return None


def _onnxruntime() -> tuple[str | None, tuple[str, ...]]:
    try:
        import onnxruntime
    except ImportError:
        return None, ()
    return str(onnxruntime.__version__), tuple(onnxruntime.get_available_providers())


def _qnn() -> QnnLibrary | str:
    try:
        return qnn_library()
    except (ExtraMissingError, NpuError) as error:
        return str(error)


def _rknn() -> RknnLibrary | str:
    try:
        return rknn_library()
    except (ExtraMissingError, NpuError) as error:
        return str(error)
