"""What rewriting a checkpoint from another layout into transformers' own has in common for all layouts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import CheckpointError

if TYPE_CHECKING:
    from edge_mllm_export.tensor_store import TensorInfo

LAYER = "model.vision_tower.encoder.layers."
"""The beginning of the names of a tower's layers in transformers' LLaVA."""
PROJECTOR = (
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
)
"""The two-layer projector under the names of LLaVA's first code -> transformers'."""
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def renamed(stored: str, names: tuple[tuple[str, str], ...]) -> str:
    """A tensor's name with the first beginning that fits replaced; one that is not known stays and is refused later."""
    for before, after in names:
        if stored.startswith(before):
            return after + stored.removeprefix(before)
    return stored


def text_fields(file: Path, text: Mapping[str, Any]) -> dict[str, Any]:
    """Those fields of a language model's configuration that its class knows, ``model_type`` and sizes among them.

    Raises:
        CheckpointError: A size is no whole number above 0.
    """
    from transformers import AutoConfig

    known = AutoConfig.for_model(text["model_type"]).to_dict()
    known.pop("rope_parameters", None)
    kept = {*known, "rope_theta", "rope_scaling", "head_dim", "partial_rotary_factor"}
    fields = {key: value for key, value in text.items() if key in kept}
    for name in _SIZES:
        value = fields.setdefault(name, known[name])
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(file, name, f"is {value!r}, expected a whole number above 0")
    return {key: value for key, value in fields.items() if not key.startswith("_") and key != "architectures"}


def tower_layers(tensors: Mapping[str, TensorInfo]) -> int:
    """Layers of the tower, counted by their tensors under transformers' names."""
    return len({name.removeprefix(LAYER).partition(".")[0] for name in tensors if name.startswith(LAYER)})


def tower_widths(file: Path, tower: str, tensors: Mapping[str, TensorInfo]) -> dict[str, int]:
    """The tower's ``hidden_size`` and ``intermediate_size``, which a configuration that only names it leaves out.

    Raises:
        CheckpointError: The tower is not in the checkpoint.
    """
    first = f"{LAYER}0.mlp.fc1.weight"
    if first not in tensors or len(tensors[first].shape) != 2:
        reason = f"holds no tower; the weights of {tower} have to be in the checkpoint"
        raise CheckpointError(file.parent, "tensors", reason)
    inner, hidden = tensors[first].shape
    return {"hidden_size": hidden, "intermediate_size": inner}


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file as transformers lays it out."""
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def copy_papers(source: Path, out: Path) -> None:
    """Take the model card and the licence along."""
    for name in ("README.md", "LICENSE"):
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
