"""Which library runs a vision tower: ONNX Runtime, or OpenVINO where it is installed.

``ort`` is ONNX Runtime. ``openvino`` computes in float32, ``openvino-bf16`` in bfloat16, which keeps 8 significant
bits: on the starter's trained weights embeddings then have a cosine of 0.99999 with float32's, an int8 tower's 0.9999.
A tower exported with ``vision='int8_static'`` keeps integer products in both, its attention alone is then in float32 or
bfloat16; the operators of an int8 or int4 tower are ONNX Runtime's own and slow in OpenVINO. Which is fastest depends
on the processor: ``benchmarks/tower.py`` compares.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy.typing as npt

from edge_mllm.errors import BundleError, EngineError, ExtraMissingError, SettingError
from edge_mllm.machine.kept_graphs import open_graph
from edge_mllm.machine.memory import trim_heap
from edge_mllm.machine.ort import levels_here, session_options

TowerEngine = Literal["ort", "openvino", "openvino-bf16"]
SLOW_IN_OPENVINO = ("int8", "int4")
"""Vision recipes whose integer operators are ONNX Runtime's own."""
TOWER_ENGINES: tuple[TowerEngine, ...] = get_args(TowerEngine)
Array = npt.NDArray[Any]


class TowerSession(Protocol):
    """A tower in memory, with the methods of ONNX Runtime's InferenceSession that are used."""

    def get_inputs(self) -> Sequence[Any]:
        """Inputs with ``name``, ``type`` (as ``tensor(float)``) and ``shape``, free axes by anything but a number."""
        ...

    def get_outputs(self) -> Sequence[Any]:
        """Outputs, as inputs."""
        ...

    def run(self, names: list[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Outputs of these names."""
        ...


def open_tower(path: Path, engine: TowerEngine, threads: int | None) -> TowerSession:
    """Load a tower.

    Args:
        path: The ONNX file.
        engine: What runs it.
        threads: Threads of one run; None lets the library choose.

    Raises:
        BundleError: The library cannot read the file.
        ExtraMissingError: It is not installed.
        SettingError: There is no such engine, or this processor has no bfloat16.
    """
    if engine == "ort":
        session: TowerSession = _open_ort(path, threads)
        return session
    if engine in TOWER_ENGINES:
        return _OpenVino(path, threads, bfloat16=engine == "openvino-bf16")
    raise SettingError(f"no vision engine '{engine}'; there are {', '.join(TOWER_ENGINES)}")


def usable_engines(precision: str) -> tuple[TowerEngine, ...]:
    """Engines that are installed and have fast code for a tower of this vision recipe, ``ort`` first."""
    installed = importlib.util.find_spec("openvino") is not None
    return TOWER_ENGINES if installed and precision not in SLOW_IN_OPENVINO else ("ort",)


def engine_label(engine: TowerEngine) -> str:
    """Name and version of what runs a tower: with it, the bits of embeddings may change.

    Raises:
        ExtraMissingError: It is not installed.
    """
    if engine == "ort":
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}"
    return f"{engine} {_openvino().__version__}"


def has_bfloat16(core: Any) -> bool:
    """Whether an openvino.Core computes in bfloat16 on this processor, which it then does unless told otherwise."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _open_ort(path: Path, threads: int | None) -> Any:
    options = session_options(threads)
    # Weights in a file beside the graph would be mapped, but ONNX Runtime packs a copy of them all the same: the same
    # anonymous memory. Without packing it is 85 MB less, and a tile takes 7 % longer (tower_external.json).
    # Threads spin between the operators of a run, but must not take cores from the decoder after it.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = open_graph(path, options)
    except Exception as error:  # the classes of ONNX Runtime share no base but this
        raise BundleError(path, f"ONNX Runtime cannot load the vision tower ({line(error)})") from error
    trim_heap()
    return _Ort(session)


class _Ort:
    """A tower on ONNX Runtime's CPU provider. After each run its activations are given back: the decoder needs room."""

    def __init__(self, session: Any) -> None:
        import onnxruntime as ort

        self._session, self._options = session, ort.RunOptions()
        self._options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs
        self._levels = levels_here(session)

    def run(self, names: list[str], feeds: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """As ONNX Runtime's sessions."""
        found: list[npt.NDArray[Any]] = self._session.run(names, {**feeds, **self._levels}, self._options)
        return found


@dataclass(frozen=True)
class Port:
    """An input or output, as ONNX Runtime describes it."""

    name: str
    type: str
    shape: list[int | str]


class _OpenVino:
    """A tower on OpenVINO's CPU plug-in."""

    def __init__(self, path: Path, threads: int | None, *, bfloat16: bool) -> None:
        library = _openvino()
        core = library.Core()
        if bfloat16 and not has_bfloat16(core):
            reason = "this processor has no bfloat16 instructions, so OpenVINO would compute in float32"
            raise SettingError(f"{reason}; use `vision_engine='openvino'` or `vision_engine='ort'`")
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32"}
        settings["PERFORMANCE_HINT"] = "LATENCY"
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            compiled = core.compile_model(str(path), "CPU", settings)
        except Exception as error:  # OpenVINO raises RuntimeError and others
            raise BundleError(path, f"OpenVINO cannot load the vision tower ({line(error)})") from error
        self._inputs, self._outputs = map(_ports, (compiled.inputs, compiled.outputs))
        self._request = compiled.create_infer_request()

    def get_inputs(self) -> list[Port]:
        return self._inputs

    def get_outputs(self) -> list[Port]:
        return self._outputs

    def run(self, names: list[str], feeds: Mapping[str, Array]) -> list[Array]:
        found = self._request.infer(dict(feeds))
        return [found[name].copy() for name in names]  # the next run writes to the same memory


def _ports(ports: Sequence[Any]) -> list[Port]:
    kinds = {"f32": "tensor(float)", "i64": "tensor(int64)"}
    return [
        Port(
            port.any_name,
            kinds.get(port.element_type.get_type_name(), port.element_type.get_type_name()),
            ["free" if side.is_dynamic else side.get_length() for side in port.partial_shape],
        )
        for port in ports
    ]


def _openvino() -> Any:
    if importlib.util.find_spec("openvino") is None:
        raise ExtraMissingError("openvino", "openvino")
    try:
        import openvino
    except (ImportError, OSError) as error:
        raise EngineError(f"openvino cannot be loaded: {error}") from error
    return openvino


def line(error: BaseException) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
