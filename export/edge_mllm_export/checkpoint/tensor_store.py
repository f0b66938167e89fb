"""The weights of a checkpoint directory: headers first, values one tensor at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.pointers import is_pointer
from edge_mllm_export.errors import CheckpointError

if TYPE_CHECKING:
    import torch

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

_OLDER_NAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "idefics3": (
        ("text_model.model.", "model.text_model."),
        ("text_model.lm_head.", "lm_head."),
        ("model.text_model.model.", "model.text_model."),
        ("text_model.", "model.text_model."),
        ("vision_model.", "model.vision_model."),
        ("connector.", "model.connector."),
    ),
}
"""``model_type`` -> (prefix found in older or converted checkpoints, prefix today). The first that fits is used."""
_OLDER_NAMES["smolvlm"] = _OLDER_NAMES["idefics3"]
_OLDER_NAMES["internvl"] = (
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head.", "lm_head."),
    ("vision_tower.", "model.vision_tower."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
)
_OLDER_NAMES["llava"] = (
    ("model.vision_tower.vision_model.", "model.vision_tower."),
    ("vision_tower.vision_model.", "model.vision_tower."),
    *_OLDER_NAMES["internvl"],
)
_OLDER_NAMES["llava_next"] = (("image_newline", "model.image_newline"), *_OLDER_NAMES["llava"])
_OLDER_NAMES["llava_onevision"] = _OLDER_NAMES["llava_next"]
_OLDER_NAMES["qwen2_vl"] = (
    ("model.visual.", "model.visual."),
    ("model.language_model.", "model.language_model."),
    ("visual.", "model.visual."),
    ("model.", "model.language_model."),
)
_OLDER_NAMES["qwen2_5_vl"] = _OLDER_NAMES["qwen2_vl"]
_OLDER_NAMES["gemma3"] = _OLDER_NAMES["llava"]

_WRAPPERS = re.compile(r"(?:base_model\.model\.|_orig_mod\.|module\.)+")
"""Left in names by adapters that were merged in place, by torch.compile and by DistributedDataParallel."""
_UNMERGED = re.compile(r"\.base_layer\.|\.lora_(?:A|B|embedding_A|embedding_B)(?:\.|$)")

_MERGE_FIRST = (
    "belongs to an adapter that is not merged; merge it with peft (merge_and_unload) and save the result, "
    "or export the adapter's own directory"
)

DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Dtypes of weights that can be exported, with their size in bytes; everything else means a quantised checkpoint."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a safetensors file."""

    shape: tuple[int, ...]
    dtype: str
    """As safetensors writes it: "F32", "F16", "BF16", ..."""
    file: Path
    stored_name: str
    """The name inside the file, before it was brought to the current layout."""

    @property
    def nbytes(self) -> int:
        """Bytes of the values.

        Raises:
            KeyError: The dtype is not one of :data:`DTYPES`.
        """
        count = DTYPES[self.dtype]
        for side in self.shape:
            count *= side
        return count


def read_inventory(directory: Path, model_type: str) -> dict[str, TensorInfo]:
    """Read the headers of all weight files.

    Args:
        directory: The checkpoint.
        model_type: Decides how older names are brought to the current ones.

    Returns:
        Current name -> info, in the order of the files and names.

    Raises:
        CheckpointError: A file is missing or truncated, the weights are pickles, an index does not fit its files, two
            tensors get the same name, or an adapter was saved with the model and not merged.
    """
    found: dict[str, TensorInfo] = {}
    rename = renamer(model_type)
    for file in weight_files(directory):
        for stored, info in read_header(file).items():
            if _UNMERGED.search(stored):
                raise CheckpointError(file, stored, _MERGE_FIRST)
            name = rename(stored)
            if name in found:
                raise CheckpointError(file, stored, f"is there twice, also as '{found[name].stored_name}'")
            found[name] = info
    if not found:
        raise CheckpointError(directory / SINGLE, "", "holds no tensors")
    _check_index(directory, {info.stored_name: info for info in found.values()})
    return found


def renamer(model_type: str) -> Callable[[str], str]:
    """Return the function that brings a stored tensor name to the current layout of ``model_type``."""
    table = _OLDER_NAMES.get(model_type, ())

    def rename(name: str) -> str:
        if wrapped := _WRAPPERS.match(name):
            name = name[wrapped.end() :]
        for old, new in table:
            if name.startswith(old):
                return new + name.removeprefix(old)
        return name

    return rename


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint directory, sorted.

    Raises:
        CheckpointError: There are none (a sentence about pickles when there are only those), or a shard is missing.
    """
    index = directory / INDEX
    if index.is_file():
        names = sorted(set(_weight_map(index).values()))
        missing = [name for name in names if not (directory / name).is_file()]
        if missing:
            raise CheckpointError(index, "weight_map", f"these files are missing: {', '.join(missing)}")
        return [directory / name for name in names]
    if (directory / SINGLE).is_file():
        return [directory / SINGLE]
    pickles = sorted(path.name for pattern in _PICKLES for path in directory.glob(pattern))
    if pickles:
        reason = (
            f"the weights are Python pickles ({pickles[0]}), which can run code and are never opened; "
            "load the model in transformers and save it again with save_pretrained"
        )
        raise CheckpointError(directory, "", reason)
    raise CheckpointError(directory / SINGLE, "", "is missing, and so is an index of shards")


def read_tensor(info: TensorInfo) -> torch.Tensor:
    """Read one tensor; nothing else of its file stays in memory afterwards.

    Raises:
        CheckpointError: The file is not readable any more, or a value is not a finite number.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(info.file, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(info.stored_name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(info.file, info.stored_name, f"cannot be read ({_one_line(error)})") from error
    if tensor.is_floating_point() and tensor.numel():
        for bound in torch.aminmax(tensor):  # both are NaN where one value is; nothing of the tensor's size is made
            if not bool(torch.isfinite(bound)):
                raise CheckpointError(info.file, info.stored_name, f"has values that are no finite numbers ({bound})")
    return tensor


def pointers(directory: Path) -> list[str]:
    """Names of files that are Git LFS pointers."""
    return [path.name for path in sorted(directory.iterdir()) if path.is_file() and is_pointer(path)]


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Read names, shapes and dtypes of one safetensors file, without its values.

    Raises:
        CheckpointError: The file is missing, truncated or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            slices = {name: opened.get_slice(name) for name in sorted(opened.keys())}
            return {
                name: TensorInfo(tuple(part.get_shape()), str(part.get_dtype()), file, name)
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise CheckpointError(file, "", f"is no whole safetensors file ({_one_line(error)})") from error


def _weight_map(index: Path) -> Mapping[str, str]:
    try:
        document: Any = json.loads(index.read_text(encoding="utf-8"))
        weight_map = document["weight_map"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(index, "weight_map", f"cannot be read ({_one_line(error)})") from error
    names = weight_map.values() if isinstance(weight_map, dict) else ()
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CheckpointError(index, "weight_map", "does not map tensors to files of this directory")
    return dict(weight_map)


def _check_index(directory: Path, stored: Mapping[str, TensorInfo]) -> None:
    index = directory / INDEX
    if not index.is_file():
        return
    weight_map = _weight_map(index)
    lost = sorted(name for name, file in weight_map.items() if name not in stored or stored[name].file.name != file)
    if lost:
        raise CheckpointError(index, "weight_map", f"these tensors are not in their files: {', '.join(lost)}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
