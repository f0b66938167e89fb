"""Bundles for counting: the starter, and published shapes of which few layers of tower and decoder are left.

What a layer executes does not depend on how many there are, and an emulator is too slow for all of them.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "arm_counts"
STARTER = "starter"
MMPROJ = ("q8_0", "f16")


@dataclass(frozen=True)
class CutModel:
    """What is counted."""

    name: str
    """``starter``, or what follows ``shape:``."""
    layers: int | None
    """Layers of tower and decoder that are left; None: all."""

    @property
    def title(self) -> str:
        """Its name in results."""
        return self.name if self.layers is None else f"{self.name}, {self.layers} layer{'s'[: self.layers > 1]}"

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return BUILD / "models" / (self.name if self.layers is None else f"{self.name}-{self.layers}")


def make_model(model: CutModel) -> Path:
    """The folder with model.edge (an int8 tower, both decoders, prompt weights), tower-fp32.edge and mmproj files.

    It is made again when the exporter changes.
    """
    from edge_mllm_export import ExportOptions, export_bundle
    from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
    from edge_mllm_export.families.registry import find_family
    from edge_mllm_export.write.vision.mmproj import write_mmproj

    mark, wanted = model.folder / "made", _exporter()
    if mark.exists() and mark.read_text() == wanted:
        return model.folder
    shutil.rmtree(model.folder, ignore_errors=True)
    model.folder.mkdir(parents=True)
    source = _checkpoint(model)
    plain = ExportOptions(verify=False, calibration=False, prompt_weights="int8")
    for name, options in (
        ("model.edge", plain),
        ("tower-fp32.edge", replace(plain, format="onnx", prompt_weights=None, vision="fp32")),
    ):
        export_bundle(str(source), model.folder / name, options, lambda step: print(step, file=sys.stderr))
    opened = open_checkpoint(source)
    family = find_family(opened)
    for precision in MMPROJ:
        write_mmproj(opened, family, model.folder / f"mmproj-{precision}.gguf", precision)
    mark.write_text(wanted)
    return model.folder


def layers_of(name: str) -> dict[str, int]:
    """How many layers tower and decoder of a published shape have."""
    from transformers import AutoConfig

    from edge_mllm_export.shapes import load_shape

    config = load_shape(name).config
    fields = {key: value for key, value in config.items() if key not in ("model_type", "torch_dtype")}
    whole = AutoConfig.for_model(config["model_type"], **fields)
    return {"tower": whole.vision_config.num_hidden_layers, "decoder": whole.text_config.num_hidden_layers}


def _checkpoint(model: CutModel) -> Path:
    if model.layers is None:
        return ROOT / "starter" / "checkpoint"
    from edge_mllm_export.shapes import load_shape, write_shape

    plan = load_shape(model.name)
    config = copy.deepcopy(plan.config)
    for part in ("vision_config", "text_config"):
        config[part]["num_hidden_layers"] = model.layers
    directory = model.folder / "checkpoint"
    write_shape(replace(plan, config=config), directory)
    return directory


def _exporter() -> str:
    """The trees of the packages that write bundles."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD:export", "HEAD:quant"]
    return json.dumps(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
