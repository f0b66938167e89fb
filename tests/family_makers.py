"""Every family's tiny checkpoint by the family's name."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

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
    "minicpm_v_4_7": ("tiny_minicpm_v_4_7", "make_tiny_minicpm_v_4_7"),
}
"""Family -> module and function that make its tiny checkpoint; a new family is added here."""


def make_tiny(family: str, folder: Path) -> Path:
    """Write the tiny checkpoint of a family below a folder, or copy the one that another test has made."""
    if shared is None:
        return _make(family, folder)
    with FileLock(shared / f"{family}.lock"):
        if not (shared / f"{family}.done").exists():
            _make(family, shared)
            (shared / f"{family}.done").touch()
    return Path(shutil.copytree(shared / family, folder / family))


shared: Path | None = None
"""Where a run of tests keeps what its workers have made."""


def _make(family: str, folder: Path) -> Path:
    module, function = MAKERS[family]
    made: Path = getattr(importlib.import_module(module), function)(folder / family)
    return made


def linked_copy(checkpoint: Path, directory: Path) -> Path:
    """Links to a checkpoint's files in a directory, which is made where it is not there."""
    directory.mkdir(exist_ok=True)
    for path in checkpoint.iterdir():
        (directory / path.name).symlink_to(path)
    return directory


def changed_copy(
    checkpoint: Path, directory: Path, file: str, change: Mapping[str, Any], section: str | None = None
) -> Path:
    """As :func:`linked_copy`, but for a JSON file with other fields, of one of its objects where that is named."""
    linked_copy(checkpoint, directory)
    document = json.loads((checkpoint / file).read_text(encoding="utf-8"))
    (document[section] if section else document).update(change)
    (directory / file).unlink()
    (directory / file).write_text(json.dumps(document), encoding="utf-8")
    return directory


def check_refused(opened: Checkpoint, says: str, *specs: str) -> None:
    """A family refuses a checkpoint's settings.

    Args:
        opened: The checkpoint.
        says: What the message must match.
        specs: Which of the family's specifications are asked for; without any, those of pictures and prompts.
    """
    from edge_mllm.errors import EdgeMLLMError
    from edge_mllm_export.families.registry import find_family

    family = find_family(opened)
    with pytest.raises(EdgeMLLMError, match=says):
        for spec in specs or ("image", "vision", "prompt"):
            getattr(family, spec)(opened)


def check_missing_tensor(checkpoint: Path, directory: Path, name: str) -> None:
    """A checkpoint without the tensors whose names end so is refused, and they are named.

    Args:
        checkpoint: Whole, in one file.
        directory: An empty one for what is left.
        name: As in the checkpoint, or its end.
    """
    from safetensors.torch import load_file, save_file

    from edge_mllm.errors import EdgeMLLMError
    from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
    from edge_mllm_export.families.inventory import check_tensors
    from edge_mllm_export.families.registry import find_family

    linked_copy(checkpoint, directory)
    (directory / "model.safetensors").unlink()
    tensors = load_file(checkpoint / "model.safetensors")
    kept = {each: tensor for each, tensor in tensors.items() if not each.endswith(name)}
    assert len(kept) < len(tensors)
    save_file(kept, directory / "model.safetensors", {"format": "pt"})
    opened = open_checkpoint(directory)
    with pytest.raises(EdgeMLLMError, match=rf"missing.*{re.escape(name)}"):
        check_tensors(opened, find_family(opened))
