"""Choose the codes of a finished GGUF file again with what was measured of each layer's input.

Scales, types and sizes stay as llama.cpp's quantiser wrote them, so any build of llama.cpp reads the file as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_mllm_export.gguf.file import gguf_library
from edge_mllm_export.gguf.header import TensorEntry, read_entries
from edge_mllm_quant.weights.gguf_blocks import FORMATS, read_grid, write_codes
from edge_mllm_quant.weights.rounding import refine_codes

if TYPE_CHECKING:
    from edge_mllm_quant.weights.activations import Moments


def gguf_names(moments: Mapping[str, Moments], arch: str, *, layers: int, tied: bool) -> dict[str, Moments]:
    """Moments under the names of GGUF tensors. Inputs are columns, so the order of a tensor's rows does not matter.

    Args:
        moments: Layer name in a plain causal LM (``model.layers.0.mlp.up_proj``, ``lm_head``) -> moments.
        arch: ``general.architecture`` of the file.
        layers: Of the decoder.
        tied: Whether output head and embedding table are one tensor.
    """
    library = gguf_library()
    key = next(key for key, value in library.MODEL_ARCH_NAMES.items() if value == arch)
    names = library.get_tensor_name_map(key, layers)
    found = {}
    for source, value in moments.items():
        target = "token_embd" if tied and source == "lm_head" else names.get_name(source)
        if target is not None:
            found[f"{target}.weight"] = value
    return found


def refine_gguf(plain: Path, quantised: Path, moments: Mapping[str, Moments]) -> tuple[str, ...]:
    """Rewrite the codes of every tensor whose type and input are known, in place.

    Args:
        plain: The float file that ``quantised`` was made from.
        quantised: The file to change.
        moments: GGUF tensor name -> second moments of its input columns; entries without products are left out.

    Returns:
        Names of the tensors that were rewritten.
    """
    source, target = read_entries(plain), read_entries(quantised)
    done = []
    for name, entry in target.items():
        known = moments.get(name)
        if known is None or known.products is None or entry.dtype not in FORMATS:
            continue
        weights, data = _read_float(plain, source[name]), _read_bytes(quantised, entry)
        codes = refine_codes(weights, read_grid(entry.dtype, data), known.products)
        with quantised.open("r+b") as file:
            file.seek(entry.offset)
            file.write(write_codes(entry.dtype, data, codes).tobytes())
        done.append(name)
    return tuple(done)


def _read_bytes(path: Path, entry: TensorEntry) -> npt.NDArray[np.uint8]:
    """A tensor's bytes uint8 [rows, bytes of a row]."""
    with path.open("rb") as file:
        file.seek(entry.offset)
        data = np.frombuffer(file.read(entry.nbytes), np.uint8)
    return data.reshape(entry.shape[0], -1)


def _read_float(path: Path, entry: TensorEntry) -> npt.NDArray[np.float32]:
    library = gguf_library()
    raw = _read_bytes(path, entry)
    values = library.quants.dequantize(raw, library.GGMLQuantizationType[entry.dtype])
    return np.asarray(values, np.float32).reshape(entry.shape)
