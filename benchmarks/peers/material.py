"""What every peer starts from: one checkpoint, this project's bundle of it, mmproj files, pictures, environments."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from peer_edge_mllm import other_bundle
from peer_libmtmd import mmproj_file
from roster import ENVIRONMENTS

from edge_mllm.measure.bench.cases import sample_picture

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "peers"
MMPROJ = ("f16", "q8_0")
OTHERS: dict[str, dict[str, Any]] = {
    "b64": {"quant": "int4_b64", "kv": "q8"},
    "openvino": {"vision": "int8,int8_static"},
}
"""Word of a variant -> what its bundle is exported with."""


def checkpoint_directory(shape: str | None, given: str | None, work: Path) -> Path:
    """The checkpoint: the one that was given, or random weights in a published shape."""
    if given is not None:
        return Path(given).resolve()
    from edge_mllm_export.shapes import load_shape, write_shape

    directory = work / "checkpoint"
    if not (directory / "written").exists():
        write_shape(load_shape(str(shape)), directory)
        (directory / "written").touch()
    return directory


def export_bundle_once(checkpoint: Path, work: Path, source: str, words: Collection[str] = ()) -> Path:
    """The bundle with both decoders, and mmproj files beside it; made again when the exporter changes.

    Args:
        checkpoint: What is exported.
        work: Where it lies.
        source: What other bundles are made of: a shape by its name is not calibrated, its random weights have nothing
            to lose.
        words: Of the variants that are asked for; some have a bundle of their own beside it, see :data:`OTHERS`.
    """
    from edge_mllm_export import ExportOptions, export_bundle
    from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
    from edge_mllm_export.families.registry import find_family
    from edge_mllm_export.write.vision.mmproj import write_mmproj

    bundle, mark, commit = work / "model.edge", work / "model.commit", exporter()
    fresh = bundle.exists() and mark.exists() and mark.read_text() == commit
    if not fresh:
        options = ExportOptions(verify=False, calibration=False, force=True, prompt_weights="int8")
        export_bundle(str(checkpoint), bundle, options, lambda step: print(step, file=sys.stderr))
    opened = open_checkpoint(checkpoint)
    family = find_family(opened)
    if family.mmproj is not None:
        for precision in MMPROJ:
            out = mmproj_file(str(bundle), precision)
            if not (fresh and out.exists()):
                write_mmproj(opened, family, out, precision)
    mark.write_text(commit)
    for word in sorted(OTHERS.keys() & set(words)):
        other, mark = other_bundle(str(bundle), word), work / f"model-{word}.commit"
        if not (other.exists() and mark.exists() and mark.read_text() == commit):
            options = ExportOptions(format="onnx", verify=False, force=True, prompt_weights="int8", **OTHERS[word])
            export_bundle(source, other, options, lambda step: print(step, file=sys.stderr))
            mark.write_text(commit)
    return bundle


def exporter() -> str:
    """What a bundle depends on beside the checkpoint: the trees of the packages that write it."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD:export", "HEAD:quant"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def picture_file(work: Path, size: tuple[int, int], number: int) -> Path:
    """A picture of its own for every round, so that no cache can help."""
    out = work / "pictures" / f"{size[0]}x{size[1]}-{number}.jpg"
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.exists():
        out.write_bytes(sample_picture(*size, number))
    return out


def python_of(environment: str | None) -> str:
    """The interpreter of an environment, which is made when it is not there or its pins changed."""
    if environment is None:
        return sys.executable
    home = BUILD / "environments" / environment
    pins = ENVIRONMENTS[environment]
    mark = home / hashlib.sha256(repr(pins).encode()).hexdigest()[:16]
    python = str(home / "bin" / "python")
    if not mark.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        for arguments in pins:
            subprocess.run([python, "-m", "pip", "install", "--quiet", *arguments], check=True, stdout=sys.stderr)
        mark.touch()
    return python
