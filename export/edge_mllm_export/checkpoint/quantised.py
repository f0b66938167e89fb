"""Checkpoints that are quantised already: refused with a sentence, because rounding twice costs quality."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_mllm_export.checkpoint.licence import card_base
from edge_mllm_export.checkpoint.tensor_store import DTYPES, TensorInfo
from edge_mllm_export.errors import QuantisedError

_NAMES = {
    "gptq": "GPTQ",
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "fp8": "FP8",
    "fbgemm_fp8": "FBGEMM FP8",
    "mxfp4": "MXFP4",
    "hqq": "HQQ",
    "quanto": "Quanto",
    "aqlm": "AQLM",
    "torchao": "torchao",
    "eetq": "EETQ",
    "vptq": "VPTQ",
    "auto-round": "AutoRound",
}
_FILES = ("quantize_config.json", "quant_config.json", "quantization_config.json")

_BUFFER_DTYPES = {"I64", "I32", "BOOL"}
"""Dtypes of stored position numbers and masks."""


def refuse_quantised(source: str, config: dict[str, Any], directory: Path) -> None:
    """Refuse a configuration with a ``quantization_config``.

    Args:
        source: What the user asked for, for the message.
        config: config.json.
        directory: Its directory, whose model card may name the unquantised model.

    Raises:
        QuantisedError: It is quantised.
    """
    for section in (config, config.get("text_config")):
        found = section.get("quantization_config") if isinstance(section, dict) else None
        if found:
            raise QuantisedError(source, _sentence(found, directory))


def refuse_quantised_files(source: str, directory: Path) -> None:
    """Refuse a directory with the configuration file of a stand-alone quantiser.

    Raises:
        QuantisedError: There is one.
    """
    for name in _FILES:
        if (directory / name).is_file():
            raise QuantisedError(
                source, f"it is already quantised (it has a {name}); export the unquantised model instead"
            )


def refuse_quantised_tensors(source: str, tensors: Mapping[str, TensorInfo]) -> None:
    """Refuse weights in a dtype that only quantised checkpoints have, whatever their configuration says.

    Raises:
        QuantisedError: There is such a tensor.
    """
    for name, info in tensors.items():
        if info.dtype not in DTYPES and info.dtype not in _BUFFER_DTYPES:
            reason = (
                f"it is already quantised (the tensor {name} is {info.dtype}); export the unquantised model instead"
            )
            raise QuantisedError(source, reason)


def _sentence(found: Any, directory: Path) -> str:
    settings = found if isinstance(found, dict) else {}
    method = str(
        settings.get("quant_method") or ("bitsandbytes" if _is_bitsandbytes(settings) else "an unknown method")
    )
    bits = settings.get("bits") or settings.get("w_bit")
    detail = f", {bits} bits" if isinstance(bits, int) else ""
    base = card_base(directory)
    instead = f"export its base '{base}' instead" if base else "export the unquantised model instead"
    name = _NAMES.get(method.lower(), method)
    return f"it is already quantised ({name}{detail}), and rounding twice loses more; {instead}"


def _is_bitsandbytes(settings: dict[str, Any]) -> bool:
    return bool(settings.get("load_in_4bit") or settings.get("load_in_8bit"))
