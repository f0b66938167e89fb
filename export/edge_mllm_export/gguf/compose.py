"""A GGUF file put together from the tensors of others, as they are: what llama.cpp's quantiser would write, in no time.

A tensor's bytes depend on its weights, its type and what was measured of its input, not on the other tensors. So files
that store everything in one type each hold every mixture of these types. Layout: ggml/docs/gguf.md, version 3.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from edge_mllm.bundle.gguf_header import read_gguf
from edge_mllm_export.gguf.file import GgufError, gguf_library
from edge_mllm_export.gguf.header import TensorEntry, read_entries


def compose_gguf(base: Path, donors: Mapping[str, Path], out: Path) -> dict[str, int]:
    """Write a file with the metadata of ``base`` and each tensor from the file that has it in the wanted type.

    Args:
        base: Names the tensors and their order.
        donors: Tensor name -> file; the others come from ``base``.
        out: The file to write.

    Returns:
        Bytes of every tensor, without padding.

    Raises:
        GgufError: A file does not have a tensor of this name and shape.
    """
    header = read_gguf(base)
    tables = {path: read_entries(path) for path in {base, *donors.values()}}
    chosen = {}
    for name, entry in tables[base].items():
        path = donors.get(name, base)
        found = tables[path].get(name)
        if found is None or found.shape != entry.shape:
            raise GgufError(path.name, f"it has no tensor {name} of shape {entry.shape}")
        chosen[name] = (path, found)
    sizes = {name: entry.nbytes for name, (_, entry) in chosen.items()}
    with out.open("wb") as file:
        with base.open("rb") as first:
            file.write(first.read(header.table))
        offset = 0
        for name, (_, entry) in chosen.items():
            file.write(_table_entry(name, entry, offset))
            offset += sizes[name] + _padding(sizes[name], header.alignment)
        file.write(bytes(_padding(file.tell(), header.alignment)))
        for name, (path, entry) in chosen.items():
            with path.open("rb") as source:
                source.seek(entry.offset)
                file.write(source.read(sizes[name]))
            file.write(bytes(_padding(sizes[name], header.alignment)))
    return sizes


def _table_entry(name: str, entry: TensorEntry, offset: int) -> bytes:
    text, sides = name.encode(), entry.shape[::-1]
    kind = int(gguf_library().GGMLQuantizationType[entry.dtype])
    return struct.pack(f"<Q{len(text)}sI{len(sides)}QIQ", len(text), text, len(sides), *sides, kind, offset)


def _padding(size: int, alignment: int) -> int:
    return -size % alignment
