"""Two GGUF files side by side."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from oracle.gguf_metadata import read_typed

from edge_mllm_export.gguf.header import read_entries

DESCRIPTIVE = ("general.name", "general.basename", "general.finetune", "general.license", "general.source")
"""Keys that describe a file and do not change what it computes."""


def convert(
    source: Path, model: Path, out: Path, *options: str, pre: str | None = None, vocabulary: bool = True
) -> Path:
    """llama.cpp's own conversion of a checkpoint directory."""
    convert_all(source, [(model, out, options)], pre=pre, vocabulary=vocabulary)
    return out


def convert_all(
    source: Path,
    jobs: list[tuple[Path, Path, tuple[str, ...]]],
    *,
    pre: str | None = None,
    vocabulary: bool = True,
) -> None:
    """Several conversions in one process: (checkpoint directory, file to write, options)."""
    script = Path(__file__).with_name("convert.py")
    lists = json.dumps([[*options, "--outfile", str(out), str(model)] for model, out, options in jobs])
    command = [sys.executable, str(script), str(source), lists, *(["--pre", pre] if pre else [])]
    command += [] if vocabulary else ["--no-vocabulary"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and all(out.is_file() for _, out, _ in jobs), done.stderr[-2000:]


def metadata(path: Path) -> dict[str, Any]:
    """Key -> (type, value), without the descriptive ones."""
    return {key: entry for key, entry in read_typed(path).items() if not key.startswith(DESCRIPTIVE)}


def tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Name -> (type, shape, data)."""
    data = path.read_bytes()
    return {
        name: (entry.dtype, entry.shape, data[entry.offset : entry.offset + entry.nbytes])
        for name, entry in read_entries(path).items()
    }


def tensor_differences(ours: Path, theirs: Path) -> list[str]:
    """Names of tensors that are not in both files, or not with the same type, shape and bytes."""
    a, b = tensors(ours), tensors(theirs)
    different = set(a) ^ set(b)
    for name in set(a) & set(b):
        if a[name] != b[name]:
            different.add(name)
    return sorted(different)


def key_differences(ours: Path, theirs: Path) -> dict[str, tuple[Any, Any]]:
    """Key -> (ours, theirs) where they differ in type or value; None where one file has no such key."""
    a, b = metadata(ours), metadata(theirs)
    return {key: (a.get(key), b.get(key)) for key in sorted(set(a) | set(b)) if a.get(key) != b.get(key)}
