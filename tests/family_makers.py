"""Every family's tiny checkpoint by the family's name."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

MAKERS = {
    "idefics3": ("tiny_models", "make_tiny_smolvlm"),
    "internvl": ("tiny_internvl", "make_tiny_internvl"),
    "llava": ("tiny_llava", "make_tiny_llava"),
    "llava_phi": ("tiny_llava", "make_tiny_llava_phi"),
    "llava_next": ("tiny_anyres", "make_tiny_llava_next"),
    "llava_onevision": ("tiny_anyres", "make_tiny_llava_onevision"),
    "bluelm_v": ("tiny_bluelm_v", "make_tiny_bluelm_v"),
    "ferret_ui": ("tiny_ferret_ui", "make_tiny_ferret_ui"),
    "qwen2_vl": ("tiny_qwen2_vl", "make_tiny_qwen2_vl"),
    "qwen2_5_vl": ("tiny_qwen2_vl", "make_tiny_qwen2_5_vl"),
    "qwen3_vl": ("tiny_qwen3_vl", "make_tiny_qwen3_vl"),
    "qwen3_5": ("tiny_qwen3_5", "make_tiny_qwen3_5"),
    "gemma3": ("tiny_gemma3", "make_tiny_gemma3"),
    "minicpm_v": ("tiny_minicpm_v", "make_tiny_minicpm_v"),
    "minicpm_v_4_6": ("tiny_minicpm_v_4_6", "make_tiny_minicpm_v_4_6"),
}
"""Family -> module and function that make its tiny checkpoint; a new family is added here."""


def make_tiny(family: str, folder: Path) -> Path:
    """Write the tiny checkpoint of a family below a folder."""
    module, function = MAKERS[family]
    made: Path = getattr(importlib.import_module(module), function)(folder / family)
    return made


def changed_copy(checkpoint: Path, directory: Path, file: str, change: dict[str, Any]) -> Path:
    """Links to a checkpoint's files in a directory that is there, but for a JSON file with other fields."""
    for path in checkpoint.iterdir():
        (directory / path.name).symlink_to(path)
    document = json.loads((checkpoint / file).read_text(encoding="utf-8")) | change
    (directory / file).unlink()
    (directory / file).write_text(json.dumps(document), encoding="utf-8")
    return directory
