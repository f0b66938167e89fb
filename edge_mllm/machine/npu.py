"""NPUs of this machine, and the library that runs graphs on Qualcomm's.

Hexagon processors have generations (v68 to v81). A compiled graph is for one of them, and the driver does not refuse
the others' reliably, so the generation is found out here: from the chip's id as the kernel tells it. The ids are those
of Linux's ``include/dt-bindings/arm/qcom,ids.h``; generations are from Qualcomm's table of supported chips. On x86-64
the library has a simulator in place of a driver; it counts as a device where EDGE_MLLM_HTP_SIMULATOR names the
generation to simulate.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_mllm.errors import EngineError, ExtraMissingError
from edge_mllm.machine.threads import kernel_text

SIMULATOR = "EDGE_MLLM_HTP_SIMULATOR"
ARCHITECTURES = ("v68", "v69", "v73", "v75", "v79", "v81")
"""Generations of Hexagon processors with matrix units that the compiler knows."""
CHIPS = ("rk3588", "rk3576")
"""Rockchip's chips that towers are compiled for."""
_CHIPS = {
    439: ("SM8350", "v68"),
    497: ("QCM6490", "v68"),
    498: ("QCS6490", "v68"),
    457: ("SM8450", "v69"),
    530: ("SM8475", "v69"),
    519: ("SM8550", "v73"),
    603: ("QCS8550", "v73"),
    555: ("X1E80100", "v73"),
    557: ("SM8650", "v75"),
    618: ("SM8750", "v79"),
}
"""Number in /sys/devices/soc0/soc_id -> name and generation."""
_DRIVERS = ("fastrpc-cdsp", "fastrpc-cdsp-secure", "adsprpc-smd")
_NAME, _MODULE = "onnxruntime-qnn", "onnxruntime_qnn"

NpuKind = Literal["hexagon", "rockchip", "intel"]


class NpuError(EngineError):
    """A tower cannot run on an NPU here; the text says why."""


@dataclass(frozen=True)
class Npu:
    """A processor for neural networks."""

    kind: NpuKind
    name: str
    """Of the chip."""
    architecture: str
    """What graphs are compiled for, as ``v75``; empty where it is not known."""
    simulated: bool = False

    @property
    def label(self) -> str:
        """For people and results."""
        known = self.name
        if self.architecture.upper() != self.name:  # a chip of Rockchip's is its own architecture
            known = f"{self.name} {self.architecture}".rstrip()
        return f"{known} (simulated)" if self.simulated else known


@dataclass(frozen=True)
class QnnLibrary:
    """ONNX Runtime's plug-in for Qualcomm's NPUs."""

    version: str
    sdk: str
    """Version of Qualcomm's SDK in it, as ``2.51.0``."""
    provider: Path
    """The plug-in."""
    backend: Path
    """Qualcomm's library for Hexagon processors."""

    @property
    def release(self) -> str:
        """The part of the SDK's version that compiled graphs depend on, as ``2.51``."""
        return ".".join(self.sdk.split(".")[:2])


def find_npus(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> tuple[Npu, ...]:
    """NPUs that the kernel shows, or the simulated one that the environment asks for.

    Args:
        root: Where /dev, /sys and /proc are.
        environment: Variables.

    Raises:
        NpuError: The environment names a generation that there is not.
    """
    asked = environment.get(SIMULATOR)
    if asked:
        return (simulated(asked),)
    found = [_hexagon(root), _rockchip(root), _intel(root)]
    return tuple(npu for npu in found if npu is not None)


def simulated(architecture: str) -> Npu:
    """The simulator as a device.

    Raises:
        NpuError: There is no such generation.
    """
    if architecture not in ARCHITECTURES:
        raise NpuError(f"no Hexagon generation '{architecture}'; there are {', '.join(ARCHITECTURES)}")
    return Npu("hexagon", "Hexagon", architecture, simulated=True)


def qnn_library() -> QnnLibrary:
    """The installed plug-in.

    Raises:
        ExtraMissingError: It is not installed.
        NpuError: It is, but a file of it is not there or it says no version.
    """
    if importlib.util.find_spec(_MODULE) is None:
        raise ExtraMissingError("npu", _NAME)
    try:
        import onnxruntime_qnn as plugin
        from onnxruntime_qnn import build_and_package_info as built

        found = QnnLibrary(
            str(built.__version__),
            str(built.qnn_version),
            Path(plugin.get_library_path()),
            Path(plugin.get_qnn_htp_path()),
        )
    except (ImportError, OSError, AttributeError) as error:
        raise NpuError(f"onnxruntime-qnn cannot be used ({' '.join(str(error).split())[:200]})") from error
    for file in (found.provider, found.backend):
        if not file.is_file():
            raise NpuError(f"onnxruntime-qnn lacks its file {file.name}; type: pip install --force-reinstall {_NAME}")
    return found


def _hexagon(root: Path) -> Npu | None:
    """A Hexagon processor whose driver programs can reach."""
    if not any((root / "dev" / name).exists() for name in _DRIVERS):
        return None
    text = kernel_text(root / "sys/devices/soc0/soc_id")
    name, architecture = _CHIPS.get(int(text), (f"chip {text}", "")) if text.isdigit() else ("Hexagon", "")
    return Npu("hexagon", name, architecture)


def _rockchip(root: Path) -> Npu | None:
    chip = re.search(r"rockchip,(rk35\d\d)", kernel_text(root / "proc/device-tree/compatible"))
    return Npu("rockchip", chip[1].upper(), chip[1]) if chip is not None and chip[1] in CHIPS else None


def _intel(root: Path) -> Npu | None:
    driver = root / "sys/class/accel/accel0/device/driver"
    return Npu("intel", "Intel NPU", "") if driver.exists() and driver.resolve().name == "intel_vpu" else None
