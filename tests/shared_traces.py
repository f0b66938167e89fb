"""Towers that torch's exporter traced once in a session, for both workers: most tests trace the same few tiny towers.

A trace is a function of the module alone: its classes, settings and weights, which make the key. A module that holds
something else, a function that somebody put into it for example, is traced every time.
"""

from __future__ import annotations

import enum
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock


class UnknownError(TypeError):
    """A value that has no known content."""


def digest_of(*values: object) -> str:
    """SHA-256 of modules, tensors, settings and plain values.

    Raises:
        UnknownError: Something else is in them.
    """
    found = hashlib.sha256()
    for part in _parts(list(values)):
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    import torch

    yield _name(type(value))
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | enum.Enum):
        yield repr(value).encode()
    elif isinstance(value, torch.Tensor):
        yield repr((value.dtype, value.shape, value.requires_grad, str(value.device))).encode()
        if value.device.type != "meta":  # such a one has no values
            yield value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, torch.nn.Module):
        yield from _parts({name: each for name, each in vars(value).items() if name != "training"})
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _parts(name)
            yield from _parts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _parts(each)
    elif isinstance(value, set | frozenset):
        yield from _parts(sorted(value))
    else:
        yield from _object_parts(value)


def _object_parts(value: Any) -> Iterator[bytes]:
    import torch

    if isinstance(value, type) or _is_plain_function(value):
        yield _name(value)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield repr((value.dtype, value.shape)).encode()
        yield value.tobytes()
    elif isinstance(value, torch.dtype | torch.device):
        yield repr(value).encode()
    elif is_dataclass(value):
        yield from _parts({field.name: getattr(value, field.name) for field in fields(value)})
    elif hasattr(value, "to_diff_dict"):  # a configuration of transformers
        yield from _parts(value.to_dict())
    else:
        raise UnknownError(_name(type(value)).decode())


def _is_plain_function(value: Any) -> bool:
    """Whether it is the same wherever it has the same name."""
    bound = getattr(value, "__self__", None)
    return (
        inspect.isroutine(value)
        and not getattr(value, "__closure__", None)
        and (bound is None or inspect.ismodule(bound))
    )


def _name(value: Any) -> bytes:
    name = f"{value.__module__}.{value.__qualname__}"
    if "<lambda>" in name:
        raise UnknownError(name)
    return name.encode()


class SharedTraces:
    """A folder of graphs."""

    def __init__(self, folder: Path, trace: Callable[..., Any]) -> None:
        self._folder, self._trace = folder, trace

    def trace(self, tower: Any, picture: Any, attention: str) -> Any:
        """As :func:`edge_mllm_export.write.vision.tower.trace_tower`: a ModelProto of the caller's own."""
        import onnx

        try:
            key = digest_of(tower, picture, attention)
        except (UnknownError, RecursionError):
            return self._trace(tower, picture, attention)
        file = self._folder / f"{key}.onnx"
        self._folder.mkdir(exist_ok=True)
        with FileLock(f"{file}.lock"):
            if not file.exists():
                model = self._trace(tower, picture, attention)
                file.write_bytes(model.SerializeToString())
                return model
        return onnx.load_model_from_string(file.read_bytes())
