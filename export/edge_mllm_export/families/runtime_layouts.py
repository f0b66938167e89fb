"""The file that tells the runtime how published ONNX directories are read: what all families say, written once."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from edge_mllm.typed_json import plain
from edge_mllm_export.families.registry import FAMILIES

_ABOUT = "Written from the family files by `make layouts`; do not edit."


def document() -> str:
    """The text of the runtime's file."""
    layouts = [
        {"family": family.name, "architectures": list(family.architectures), **plain(family.published)}
        for family in FAMILIES
        if family.published is not None
    ]
    return json.dumps({"about": _ABOUT, "layouts": layouts}, indent=1) + "\n"


def place() -> Path:
    """Where the runtime has it."""
    return Path(str(files("edge_mllm.bundle.published"))) / "layouts.json"
