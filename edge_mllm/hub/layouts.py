"""What a repository holds, decided from its list of files alone: which files are needed, and what is opened then."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

from edge_mllm.bundle.published.files import ORDER, SUFFIXES, Stem, wanted_precisions
from edge_mllm.errors import HubError, SettingError

Layout = Literal["bundle", "gguf", "onnx", "checkpoint"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
"""In the order in which they are looked for."""

_SMALL = re.compile(r"[^/]+\.(json|jinja)|tokenizer\.model|README\.md|LICEN[SC]E[^/]*")
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
QUANTS = (
    *("q4_k_m", "q4_0", "iq4_nl", "q4_k_s", "iq4_xs", "q4_1", "q4_k_l", "q4_k", "q5_k_m", "q5_k_s", "q5_0", "q5_1"),
    *("q6_k", "q8_0", "f16", "bf16", "fp16", "f32", "fp32", "q3_k_l", "q3_k_m", "q3_k_s", "iq3_m", "q2_k"),
)
"""Types of GGUF files as their names have them, the first that is there is taken: 4 bits, then more, then fewer."""
_TOWER_TYPES = ("f16", "fp16", "bf16", "q8_0", "f32", "fp32")
"""The same for a tower: halves lose nothing that matters and are computed faster than 8 bits."""


@dataclass(frozen=True)
class Choice:
    """What is fetched and what is opened."""

    layout: Layout
    files: tuple[str, ...]
    opened: str
    """The path in the snapshot that is opened: a file, a folder, or an empty text for the whole of it."""
    mmproj: str | None = None
    """The tower of a GGUF file."""


def choose(
    name: str,
    sizes: Mapping[str, int],
    *,
    layout: str | None = None,
    precision: str | None = None,
    quant: str | None = None,
) -> Choice:
    """Choose the files of a model.

    Args:
        name: What the user wrote, for messages.
        sizes: The repository's files and their bytes.
        layout: One of :data:`LAYOUTS`; None takes the first that is there and can be run here.
        precision: Of ONNX files, see :func:`edge_mllm.bundle.published.files.choose_files`.
        quant: Of a GGUF file, as its name has it: ``Q8_0``.

    Raises:
        HubError: It holds nothing that can be run, or not what was asked for.
        SettingError: There is no such layout or precision.
    """
    if layout is not None and layout not in LAYOUTS:
        raise SettingError(f"layout is '{layout}'; it must be one of {', '.join(LAYOUTS)}")
    finders = {
        "bundle": lambda: _bundle(sizes),
        "gguf": lambda: _gguf(name, sizes, quant),
        "onnx": lambda: _onnx(name, sizes, precision),
        "checkpoint": lambda: _checkpoint(sizes),
    }
    if quant is not None and layout is None:
        layout = "gguf"
    if precision is not None and layout is None:
        layout = "onnx"
    if layout is not None:
        found = finders[layout]()
        if found is None:
            raise HubError(name, f"it holds no {_WORDS[layout]}; it holds {_listing(sizes)}")
        return found
    passed_over = ""
    for each in LAYOUTS:
        found = finders[each]()
        if found is None:
            continue
        if each == "gguf" and find_spec("llama_cpp") is None:
            passed_over = "; its GGUF files need llama-cpp-python: pip install 'edge-mllm[gguf]'"
            continue
        return found
    raise HubError(name, f"it holds nothing that can be run{passed_over or f'; it holds {_listing(sizes)}'}")


_WORDS = {
    "bundle": "bundle (bundle.json)",
    "gguf": "GGUF file with its mmproj",
    "onnx": "ONNX files in the layout of transformers.js (onnx/decoder_model_merged*.onnx)",
    "checkpoint": "checkpoint (config.json with *.safetensors)",
}


def _bundle(sizes: Mapping[str, int]) -> Choice | None:
    """A bundle at the top, or the first in a folder of its own."""
    found = sorted((name for name in sizes if name == "bundle.json" or name.endswith(".edge/bundle.json")), key=len)
    if not found:
        return None
    folder = found[0].removesuffix("bundle.json")
    files = [name for name in sizes if name.startswith(folder) and "/" not in name.removeprefix(folder)]
    kept = [name for name in files if folder or not name.startswith(".git")]
    return Choice("bundle", (found[0], *(name for name in kept if name != found[0])), folder.rstrip("/"))


def _gguf(name: str, sizes: Mapping[str, int], quant: str | None) -> Choice | None:
    files = [each for each in sizes if each.lower().endswith(".gguf")]
    towers = [each for each in files if "mmproj" in each.lower()]
    models = [each for each in files if each not in towers and "imatrix" not in each.lower()]
    first = [each for each in models if not (found := _SPLIT.search(each)) or found[1] == "00001"]
    if not first:
        return None
    types = QUANTS if quant is None else (quant.lower(),)
    chosen = _by_type(first, types, sizes)
    if chosen is None and quant is not None:
        raise HubError(name, f"it holds no GGUF file in {quant}; it holds {_listing(first)}")
    model = chosen or min(first, key=sizes.__getitem__)
    tower = None if not towers else _by_type(towers, _TOWER_TYPES, sizes) or min(towers, key=sizes.__getitem__)
    files = [*_parts(model, models), *([tower] if tower else []), *(each for each in sizes if _is_card(each))]
    return Choice("gguf", tuple(files), model, tower)


def _by_type(files: Iterable[str], types: Iterable[str], sizes: Mapping[str, int]) -> str | None:
    """The first file whose name has the first of these types; of several the smallest."""
    files = list(files)
    for kind in types:
        fitting = [each for each in files if re.search(rf"(?:^|[-_./]){kind}(?=[-_.]|$)", each.lower())]
        if fitting:
            return min(fitting, key=lambda each: (sizes[each], each))
    return None


def _parts(model: str, models: Iterable[str]) -> list[str]:
    """All parts of a split file, the first in front."""
    found = _SPLIT.search(model)
    if found is None:
        return [model]
    stem = model[: found.start()]
    return sorted(each for each in models if each.startswith(stem) and _SPLIT.search(each))


def _onnx(name: str, sizes: Mapping[str, int], precision: str | None) -> Choice | None:
    folder = next((each for each in ("onnx/", "") if _graphs(sizes, each, "decoder_model_merged")), None)
    if folder is None or not _graphs(sizes, folder, "vision_encoder"):
        return None
    asked = wanted_precisions(precision)
    files: list[str] = []
    for stem in ORDER:
        graphs = _graphs(sizes, folder, stem)
        kind = asked.get(stem, next(iter(graphs), ""))
        if kind not in graphs:
            raise HubError(name, f"it has no {stem} in {kind or 'any precision'}; it has {', '.join(graphs) or 'none'}")
        files += [graphs[kind], *sorted(each for each in sizes if each.startswith(f"{graphs[kind]}_data"))]
    small = [each for each in sizes if _SMALL.fullmatch(each)]
    return Choice("onnx", (*small, *files), "")


def _graphs(sizes: Mapping[str, int], folder: str, stem: Stem) -> dict[str, str]:
    names = {kind: f"{folder}{stem}{SUFFIXES[kind]}.onnx" for kind in ORDER[stem]}
    return {kind: file for kind, file in names.items() if file in sizes}


def _checkpoint(sizes: Mapping[str, int]) -> Choice | None:
    if "config.json" in sizes and any(each.endswith(".safetensors") for each in sizes):
        return Choice("checkpoint", ("config.json",), "")
    return None


def _is_card(file: str) -> bool:
    return file == "README.md" or re.fullmatch(r"LICEN[SC]E[^/]*", file) is not None


def _listing(files: Iterable[str]) -> str:
    """Some of the files, for a message."""
    names = sorted(each for each in files if not each.startswith(".git"))
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "no files"
