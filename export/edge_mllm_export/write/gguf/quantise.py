"""llama.cpp's own quantiser, run in a process of its own because it ends its process on a failed assertion."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_mllm.errors import EngineError, ExtraMissingError
from edge_mllm_export.errors import OutputError
from edge_mllm_export.gguf.file import GgufError, gguf_library
from edge_mllm_export.gguf.header import read_entries

if TYPE_CHECKING:
    from edge_mllm_quant.recipes.recipe import Recipe
    from edge_mllm_quant.weights.activations import Moments

log = logging.getLogger(__name__)

RECIPE_TYPES = {
    recipe: f"MOSTLY_{recipe.upper()}"
    for recipe in (
        *("q8_0", "q6_k", "q5_0", "q5_1", "q5_k_s", "q5_k_m"),
        *("q4_0", "q4_1", "q4_k_s", "q4_k_m", "iq4_nl", "iq4_xs"),
        *("q3_k_s", "q3_k_m", "q3_k_l", "q2_k"),
    )
}
"""Recipe -> name in gguf's LlamaFileType; these need no importance matrix."""

WORKER = Path(__file__).with_name("quantise_worker.py")
"""The script of the child process."""

_FALLBACK = re.compile(
    r"warning: (\S+)\s+- ncols\s+\d+ not divisible by\s+\d+ \(required for type\s+(\S+)\)[^>]*"
    r"-> falling back to\s+(\S+)"
)
_FALLBACK_COUNT = re.compile(r"WARNING: (\d+) of \d+ tensor\(s\) required fallback")


@dataclass(frozen=True, kw_only=True)
class QuantiseOptions:
    """What may differ from llama.cpp's own mixture. Types are GGML names such as ``Q4_0`` or ``Q6_K``."""

    head: str | None = None
    """Type of the output head, and of the embedding table where the two are tied."""
    embedding: str | None = None
    """Type of the token embedding table; wins over ``head`` where they are tied."""
    tensors: Mapping[str, str] = field(default_factory=dict)
    """Regular expression on GGUF tensor names -> type; the first that matches decides."""
    imatrix: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """GGUF tensor name -> mean square of each input column, float32 [columns] (llama.cpp's importance matrix)."""
    moments: Mapping[str, Moments] = field(default_factory=dict)
    """Layer name in a plain causal LM -> second moments of its input; :func:`write_decoder_gguf` uses them."""
    threads: int = 0
    """0: as many as there are cores."""


def options_of(recipe: Recipe, moments: Mapping[str, Moments]) -> QuantiseOptions:
    """What a recipe changes in llama.cpp's mixture, with what was measured of the layers."""
    return QuantiseOptions(
        head=recipe.head, embedding=recipe.embedding_type, tensors=dict(recipe.tensors), moments=moments
    )


def quantise_gguf(source: Path, out: Path, recipe: str, options: QuantiseOptions) -> tuple[tuple[str, str], ...]:
    """Quantise a float GGUF file with ``llama_model_quantize``.

    Args:
        source: a file in F32, F16 or BF16.
        out: the file to write.
        recipe: a key of RECIPE_TYPES.
        options: deviations from llama.cpp's mixture.

    Returns:
        The tensors whose shape does not fit their type, with what llama.cpp did instead.

    Raises:
        GgufError: an option names an unknown type.
        EngineError: llama.cpp refused or ended; nothing is left at ``out``.
        OutputError: the disk is full.
        ExtraMissingError: llama-cpp-python is not installed.
    """
    if find_spec("llama_cpp") is None:
        raise ExtraMissingError("gguf", "llama_cpp")
    with tempfile.TemporaryDirectory(prefix="edge-mllm-") as scratch:
        request = _request(source, out, recipe, options)
        if options.imatrix:
            request["imatrix"] = str(Path(scratch) / "imatrix.npz")
            arrays = {name: np.asarray(values, dtype=np.float32) for name, values in options.imatrix.items()}
            np.savez(str(request["imatrix"]), allow_pickle=False, **arrays)
        path = Path(scratch) / "request.json"
        path.write_text(json.dumps(request), encoding="utf-8")
        text = _run_worker(path, out)
    return tuple({**_silent_fallback(out, recipe, options), **dict(_fallbacks(text))}.items())


def _request(source: Path, out: Path, recipe: str, options: QuantiseOptions) -> dict[str, object]:
    return {
        "source": str(source),
        "out": str(out),
        "ftype": int(gguf_library().LlamaFileType[RECIPE_TYPES[recipe]]),
        "head": _type_number(options.head),
        "embedding": _type_number(options.embedding),
        "tensors": [[pattern, _type_number(name)] for pattern, name in options.tensors.items()],
        "threads": options.threads,
        "imatrix": None,
    }


def _type_number(name: str | None) -> int | None:
    if name is None:
        return None
    types = gguf_library().GGMLQuantizationType
    if name.upper() not in types.__members__:
        raise GgufError(name, "there is no such tensor type")
    return int(types[name.upper()])


def _run_worker(request: Path, out: Path) -> str:
    # -P: the folder of this file must not come first in the search path of the child.
    command = [sys.executable, "-P", str(WORKER), str(request)]
    try:
        done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    text = done.stderr.decode("utf-8", errors="replace")
    log.debug("%s", text)
    if done.returncode != 0:
        out.unlink(missing_ok=True)
        if "iostream error" in text:
            raise OutputError(f"cannot write '{out}': the disk is full or the file too big; nothing was left behind")
        raise EngineError(f"llama.cpp could not quantise to '{out.name}': {_reason(text, done.returncode)}")
    return text


def _reason(text: str, code: int) -> str:
    """The one line of llama.cpp's output that says what was wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        if "failed to quantize" in line:
            return line.split("failed to quantize:", 1)[-1].strip()
        if "GGML_ASSERT" in line or "fatal error" in line:
            return line
    return (lines[-1] if lines else "no output") + f" (exit status {code})"


def _silent_fallback(out: Path, recipe: str, options: QuantiseOptions) -> dict[str, str]:
    """The head in Q8_0 where the blocks of the recipe's own type do not divide its rows.

    llama.cpp does not call that a fallback (src/llama-quant.cpp, llama_tensor_get_type_impl).
    """
    tensors = read_entries(out)
    name = "output.weight" if "output.weight" in tensors else "token_embd.weight"
    chosen = options.head or options.embedding or any(re.search(pattern, name) for pattern in options.tensors)
    odd = tensors[name].shape[-1] % gguf_library().QK_K
    return {name: "q6_K -> q8_0"} if odd and not chosen and recipe != "q8_0" and tensors[name].dtype == "Q8_0" else {}


def _fallbacks(text: str) -> tuple[tuple[str, str], ...]:
    found = dict.fromkeys((name, f"{asked} -> {got}") for name, asked, got in _FALLBACK.findall(text))
    announced = max((int(count) for count in _FALLBACK_COUNT.findall(text)), default=0)
    if announced != len(found):
        # A changed wording must not turn into an empty list.
        raise EngineError(f"llama.cpp reports {announced} tensors in another type, its log names {len(found)}")
    return tuple(found)
