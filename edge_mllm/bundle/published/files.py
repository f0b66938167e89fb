"""The ONNX files of a published directory, and which precision of each is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_mllm.errors import BundleError, SettingError

Stem = Literal["embed_tokens", "vision_encoder", "decoder_model_merged"]

SUFFIXES = {
    "fp32": "",
    "fp16": "_fp16",
    "q8": "_quantized",
    "int8": "_int8",
    "uint8": "_uint8",
    "q4": "_q4",
    "q4f16": "_q4f16",
    "bnb4": "_bnb4",
}
"""Precision -> what the file's name ends with; the names of transformers.js' ``dtype``."""

_REST = ("q8", "int8", "uint8", "q4", "q4f16", "bnb4")
ORDER: dict[Stem, tuple[str, ...]] = {
    "embed_tokens": ("fp16", "fp32", *_REST),
    "vision_encoder": ("fp32", "fp16", *_REST),
    "decoder_model_merged": ("q4", "q8", "int8", "uint8", "fp32", "fp16", "q4f16", "bnb4"),
}
"""Which precision is taken when nobody says: rows of the table lose nothing in fp16; what a tower loses nobody has
measured for these files, so it is taken whole; a decoder is read once a token, so the smallest that runs fast."""


@dataclass(frozen=True)
class GraphFile:
    """One ONNX file."""

    path: Path
    precision: str

    @property
    def data(self) -> tuple[Path, ...]:
        """Files of weights beside it."""
        return tuple(sorted(self.path.parent.glob(f"{self.path.name}_data*")))


def folder_of(directory: Path) -> Path | None:
    """Where the ONNX files of a published directory lie; None when it is none."""
    for folder in (directory / "onnx", directory):
        if any(folder.glob("decoder_model_merged*.onnx")):
            return folder
    return None


def choose_files(directory: Path, folder: Path, precision: str | None) -> dict[Stem, GraphFile]:
    """One file for each of the three graphs.

    Args:
        directory: The published directory.
        folder: Where its ONNX files lie.
        precision: A name for all graphs that have it, or ``graph=name`` pairs with commas between; None is
            :data:`ORDER`.

    Raises:
        BundleError: A graph is missing.
        SettingError: There is no such precision.
    """
    wanted = wanted_precisions(precision)
    chosen: dict[Stem, GraphFile] = {}
    for stem in ORDER:
        found = _files(folder, stem)
        if not found:
            raise BundleError(
                directory, f"there is no {stem}*.onnx beside its decoder; it cannot answer about pictures"
            )
        name = wanted.get(stem, next(iter(found)))
        if name not in found:
            raise SettingError(f"'{directory}' has no {stem} in {name}; it has {', '.join(found)}")
        chosen[stem] = found[name]
    return chosen


def decoder_files(directory: Path) -> dict[str, GraphFile]:
    """Precision -> decoder of a published directory, in the order of :data:`ORDER`; nothing where it is none."""
    folder = folder_of(directory)
    return {} if folder is None else _files(folder, "decoder_model_merged")


def _files(folder: Path, stem: Stem) -> dict[str, GraphFile]:
    paths = {name: folder / f"{stem}{SUFFIXES[name]}.onnx" for name in ORDER[stem]}
    return {name: GraphFile(path, name) for name, path in paths.items() if path.is_file()}


def wanted_precisions(precision: str | None) -> Mapping[str, str]:
    """Graph -> precision that was asked for; see :func:`choose_files`.

    Raises:
        SettingError: There is no such graph or precision.
    """
    if precision is None:
        return {}
    wanted = dict(_pairs(precision))
    for stem, name in wanted.items():
        if stem not in ORDER:
            raise SettingError(f"precision: there is no graph '{stem}'; known: {', '.join(ORDER)}")
        if name not in SUFFIXES:
            raise SettingError(f"precision: '{name}' is unknown; known: {', '.join(SUFFIXES)}")
    return wanted


def _pairs(precision: str) -> Iterator[tuple[str, str]]:
    for item in precision.split(","):
        stem, equals, name = item.strip().partition("=")
        if equals:
            yield stem.strip(), name.strip()
        else:
            yield from ((each, stem) for each in ORDER)
