"""llama.cpp through llama-cpp-python's low-level bindings: loading the library, its log, its enums."""

from __future__ import annotations

import ctypes
import functools
import logging
from pathlib import Path
from typing import Any

from edge_mllm.errors import EngineError, ExtraMissingError
from edge_mllm.machine.native import NativeHandle

_log = logging.getLogger("edge_mllm.llama_cpp")
_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.INFO, 4: logging.WARNING}
"""ggml's levels debug, info, warn, error; what llama.cpp calls info is noise to a caller."""


ToFloat = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class TypeTraits(ctypes.Structure):
    """The beginning of ggml's struct ggml_type_traits: how values of a type are stored."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("quantised", ctypes.c_bool),
        ("to_float", ToFloat),
    )


class _Log:
    """Receives llama.cpp's log and remembers the last complaint, which is the only reason it gives for a failure."""

    def __init__(self) -> None:
        self.last_error = ""
        self._level = logging.DEBUG

    def __call__(self, level: int, text: bytes | None, _data: Any) -> None:
        message = (text or b"").decode("utf-8", "replace").rstrip("\n")
        self._level = _LEVELS.get(level, self._level)  # 5 continues the line before
        if level == 4:
            self.last_error = message
        if message:
            _log.log(self._level, "%s", message)


class Library:
    """The loaded bindings; one for the process, see :func:`library`."""

    def __init__(self) -> None:
        try:
            import llama_cpp
        except ModuleNotFoundError as error:
            if error.name != "llama_cpp":
                raise EngineError(f"llama-cpp-python is damaged: {error}") from error
            raise ExtraMissingError("gguf", "llama-cpp-python") from error
        except (OSError, RuntimeError) as error:
            raise EngineError(f"llama-cpp-python cannot load llama.cpp: {error}") from error
        self.api: Any = llama_cpp
        self.log = _Log()
        self.callback = llama_cpp.llama_log_callback(self.log)  # must outlive every call
        llama_cpp.llama_log_set(self.callback, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()

    def type_traits(self, kind: int) -> TypeTraits:
        """How ggml stores values of a type.

        Raises:
            EngineError: There is no such type, or this build of the library does not give the table away.
        """
        if not 0 <= kind < self.api.GGML_TYPE_COUNT:
            raise EngineError(f"there is no ggml type {kind}")
        try:
            find = self.api.llama_cpp._lib.ggml_get_type_traits
        except AttributeError as error:
            raise EngineError("this llama-cpp-python does not say how its types are stored") from error
        find.argtypes, find.restype = [ctypes.c_int], ctypes.POINTER(TypeTraits)
        traits: TypeTraits = find(kind).contents
        return traits

    def failure(self, what: str) -> EngineError:
        """An error that carries llama.cpp's last complaint, which is then forgotten."""
        reason, self.log.last_error = self.log.last_error, ""
        return EngineError(f"{what}: {reason}" if reason else what)


@functools.cache
def library() -> Library:
    """The bindings.

    Raises:
        ExtraMissingError: llama-cpp-python is not installed.
        EngineError: It is installed but cannot be loaded.
    """
    return Library()


def load_model(path: Path, *, mmap: bool) -> NativeHandle:
    """Load a GGUF file on the CPU.

    Raises:
        EngineError: llama.cpp refuses the file.
    """
    lib = library()
    parameters = lib.api.llama_model_default_params()
    parameters.n_gpu_layers = 0
    if b"AMX_INT8 = 1" in lib.api.llama_print_system_info():
        # GCC before 13.3 declares the operand of ldtilecfg too small and drops half of the tile configuration
        # (gcc.gnu.org/PR114098): llama.cpp's AMX kernels then end the process at the first batch. Buffers of their
        # own are what these kernels need, so without them the AVX-512 kernels run.
        parameters.use_extra_bufts = False
    parameters.load_mode = lib.api.LLAMA_LOAD_MODE_MMAP if mmap else lib.api.LLAMA_LOAD_MODE_NONE
    lib.log.last_error = ""
    model = lib.api.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise lib.failure(f"llama.cpp cannot load {path.name}")
    return NativeHandle(model, lib.api.llama_model_free)
