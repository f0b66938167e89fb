"""llama.cpp's own script for the towers of MiniCPM-V 2.6 to 4.5, run on a checkpoint directory.

Its first step, minicpmv-surgery.py, loads the publisher's remote code to split the checkpoint. What that leaves is
written here instead: tensors of ``resampler`` in one file and those of ``vpm`` in another, float32.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

SCRIPT = "tools/mtmd/legacy-models/minicpmv-convert-image-encoder-to-gguf.py"


def convert_tower(source: Path, model: Path, scratch: Path, number: int, *, f32: bool) -> Path:
    """The mmproj that the script writes.

    Args:
        source: llama.cpp's folder.
        model: The checkpoint.
        scratch: A folder for what the script reads and writes.
        number: llama.cpp's number of the release.
        f32: F32 where the script can, else F16.
    """
    scratch.mkdir()
    shutil.copy(model / "config.json", scratch)
    tensors = {name: value.float() for name, value in load_file(model / "model.safetensors").items()}
    projector = {name: value for name, value in tensors.items() if name.startswith("resampler")}
    tower = {name.removeprefix("vpm."): value for name, value in tensors.items() if name.startswith("vpm.")}
    torch.save(projector, scratch / "minicpmv.projector")
    torch.save(tower, scratch / "minicpmv.clip")
    options = ["-m", str(scratch), "--minicpmv_version", str(number), *(["--use-f32"] if f32 else [])]
    environment = os.environ | {"PYTHONPATH": str(source / "gguf-py")}
    command = [sys.executable, str(source / SCRIPT), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return scratch / f"mmproj-model-{'f32' if f32 else 'f16'}.gguf"
