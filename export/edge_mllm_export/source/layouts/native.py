"""What rewriting a checkpoint from another layout into transformers' own has in common for all layouts."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm_export.checkpoint.shard_writer import ShardWriter
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.json_files import write_json

if TYPE_CHECKING:
    import torch

    from edge_mllm_export.checkpoint.tensor_store import TensorInfo

LAYER = "model.vision_tower.encoder.layers."
"""The beginning of the names of a tower's layers in transformers' LLaVA."""
PROJECTOR = (
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
)
"""The two-layer projector under the names of LLaVA's first code -> transformers'."""
Documents = dict[str, dict[str, Any]]
"""Configuration files of a checkpoint without their endings: "config", "preprocessor_config", "processor_config"."""
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
        fields[name] = whole_number(file, fields, name, known[name])
    return {key: value for key, value in fields.items() if not key.startswith("_") and key != "architectures"}


def whole_number(file: Path, section: Mapping[str, Any], name: str, default: int, prefix: str = "") -> int:
    """A size of a section of config.json.

    Raises:
        CheckpointError: It is no whole number above 0.
    """
    value = section.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(file, prefix + name, f"is {value!r}, expected a whole number above 0")
    return value


def tower_layers(tensors: Mapping[str, TensorInfo]) -> int:
    """Layers of the tower, counted by their tensors under transformers' names."""
    return len({name.removeprefix(LAYER).partition(".")[0] for name in tensors if name.startswith(LAYER)})


def tower_sizes(
    file: Path, tower: str, tensors: Mapping[str, TensorInfo], published: tuple[int, int, int]
) -> dict[str, int]:
    """The tower's sizes, which a configuration that only names it leaves out.

    Args:
        file: config.json, for messages.
        tower: Its name.
        tensors: The checkpoint's, under transformers' names; none where only configuration files are there.
        published: ``hidden_size``, ``intermediate_size`` and layers of the published tower of this name.

    Raises:
        CheckpointError: There are tensors, and none of the tower.
    """
    if not tensors:
        return dict(zip(("hidden_size", "intermediate_size", "num_hidden_layers"), published, strict=True))
    first = f"{LAYER}0.mlp.fc1.weight"
    if first not in tensors or len(tensors[first].shape) != 2:
        reason = f"holds no tower; the weights of {tower} have to be in the checkpoint"
        raise CheckpointError(file.parent, "tensors", reason)
    inner, hidden = tensors[first].shape
    return {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": tower_layers(tensors)}


def write_native(
    source: Path,
    out: Path,
    documents: Mapping[str, Mapping[str, Any]],
    template: str,
    tensors: Iterable[tuple[str, torch.Tensor]],
) -> Path:
    """Write a checkpoint in transformers' layout, with the model card and the licence of its source.

    Args:
        source: The original checkpoint directory.
        out: Existing directory, which is returned.
        documents: config.json, preprocessor_config.json, processor_config.json and generation_config.json without
            their endings.
        template: The chat template.
        tensors: Names and values; one shard of them is in memory at a time.
    """
    for name, document in documents.items():
        write_json(out / f"{name}.json", document)
    (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    for name in ("README.md", "LICENSE"):
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    with ShardWriter(out) as writer:
        for name, tensor in tensors:
            writer.add(name, tensor)
    return out
