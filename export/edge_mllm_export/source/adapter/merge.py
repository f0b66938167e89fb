"""LoRA adapters in PEFT's layout, merged into their base tensor by tensor.

W' = W + scaling * B A, in float32 and rounded once (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language
Models"; the scaling of rsLoRA is Kalajdzievski 2023, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA").
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mllm.bundle.template_files import JINJA, JSON, NAMED, TemplateFileError, find_template
from edge_mllm.hub.progress import byte_progress
from edge_mllm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from edge_mllm_export.checkpoint.licence import UNKNOWN, read_licence
from edge_mllm_export.checkpoint.shard_writer import ShardWriter
from edge_mllm_export.checkpoint.tensor_store import DTYPES, TensorInfo, read_header, read_tensor, renamer
from edge_mllm_export.disk import require_space
from edge_mllm_export.errors import AdapterError
from edge_mllm_export.json_files import read_json, write_json
from edge_mllm_export.source.adapter.config import FILE, AdapterConfig

if TYPE_CHECKING:
    import torch

WEIGHTS = "adapter_model.safetensors"

_PARTS = {
    ".lora_A.weight": ("weight", "a"),
    ".lora_B.weight": ("weight", "b"),
    ".lora_embedding_A": ("embedding", "a"),
    ".lora_embedding_B": ("embedding", "b"),
}
_OWN_FILES = (
    *(
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.json",
        "chat_template.jinja",
    ),
    *("processor_config.json", "preprocessor_config.json"),
)
"""Files of the adapter that stand in for the base's: it was trained with these."""


@dataclass(frozen=True)
class _Delta:
    """The two factors for one weight of the base."""

    a: TensorInfo
    b: TensorInfo
    scaling: float
    is_embedding: bool

    def added_to(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the merged weight in the dtype of ``weight``.

        Raises:
            ValueError: The factors do not fit the weight.
        """
        a, b = read_tensor(self.a).float(), read_tensor(self.b).float()
        # Convolutions store [r, in, k, k] and [out, r, 1, 1]: as products of matrices they are the same thing.
        product = b.flatten(1) @ a.flatten(1)
        if self.is_embedding or (product.shape != weight.shape and product.T.shape == weight.shape):
            product = product.T  # fan_in_fan_out layers store [in, out]
        if product.numel() != weight.numel():
            raise ValueError(f"{list(product.shape)} does not fit {list(weight.shape)}")
        return (weight.float() + self.scaling * product.reshape(weight.shape)).to(weight.dtype)


def is_adapter(directory: Path) -> bool:
    """Whether a directory holds a PEFT adapter."""
    return (directory / FILE).is_file()


def merge_adapter(source: str, directory: Path, config: AdapterConfig, base: Checkpoint, out: Path) -> Checkpoint:
    """Write base and adapter as one plain checkpoint and open it.

    Args:
        source: The SOURCE argument, for messages.
        directory: The adapter.
        config: Its adapter_config.json.
        base: The model it was trained on.
        out: Existing, empty directory to write into.

    Raises:
        AdapterError: The adapter has no safetensors, or parts of it do not fit the base (all are named).
        CheckpointError: A file is damaged.
        OutputError: The disk is too small.
    """
    if not (directory / WEIGHTS).is_file():
        raise AdapterError(
            source, f"{WEIGHTS} is missing (pickled adapters are never opened; save it with a newer peft)"
        )
    deltas, replaced = _read_parts(source, read_header(directory / WEIGHTS), config, base)
    _copy_files(base.path, directory, out)
    total = sum(info.nbytes for info in base.tensors.values() if info.dtype in DTYPES)
    require_space(out, total)
    with byte_progress("merging the adapter", total) as advance, ShardWriter(out) as writer:
        for name in base.tensors:
            tensor = base.tensor(name)
            if name in replaced:
                tensor = read_tensor(replaced[name]).to(tensor.dtype)
            if name in deltas:
                tensor = deltas[name].added_to(tensor)
            writer.add(name, tensor)
            advance(tensor.numel() * tensor.element_size())
    merged = open_checkpoint(out, id=f"{source} on {base.id}", revision=base.revision)
    return replace(merged, licence=_licence(directory, base), random_weights=base.random_weights, origin=base.origin)


def _read_parts(
    source: str, header: Mapping[str, TensorInfo], config: AdapterConfig, base: Checkpoint
) -> tuple[dict[str, _Delta], dict[str, TensorInfo]]:
    """Sort the adapter's tensors into low-rank factors and whole replacements, by the base's tensor names."""
    rename = renamer(str(base.config["model_type"]))
    factors: dict[tuple[str, bool], dict[str, TensorInfo]] = {}
    replaced: dict[str, TensorInfo] = {}
    for stored, info in header.items():
        name = stored.removeprefix("base_model.model.")
        part = next((suffix for suffix in _PARTS if name.endswith(suffix)), None)
        if part is None:
            replaced[rename(name.replace(".base_layer.", "."))] = info  # a wrapped embedding is saved whole as well
        else:
            kind, side = _PARTS[part]
            factors.setdefault((name.removesuffix(part), kind == "embedding"), {})[side] = info
    deltas = {
        rename(f"{module}.weight"): _Delta(
            sides["a"], sides["b"], config.scaling(module, sides["a"].shape[0]), is_embedding
        )
        for (module, is_embedding), sides in factors.items()
        if len(sides) == 2
    }
    single = [module for (module, _), sides in factors.items() if len(sides) == 1]
    _check_parts(source, single, deltas, replaced, base)
    return deltas, replaced


def _check_parts(
    source: str, single: list[str], deltas: Mapping[str, _Delta], replaced: Mapping[str, TensorInfo], base: Checkpoint
) -> None:
    problems = [f"{module} has only one of its two factors" for module in single]
    for name in sorted({*deltas, *replaced}):
        if name not in base.tensors:
            problems.append(f"{name} is not in the base")
        elif name in deltas and not _fits(deltas[name], base.tensors[name].shape):
            problems.append(f"{name} has another shape in the base")
        elif name in replaced and replaced[name].shape != base.tensors[name].shape:
            problems.append(f"{name} is {list(replaced[name].shape)}, in the base {list(base.tensors[name].shape)}")
    if not deltas and not replaced and not single:
        problems.append("it holds no tensors")
    if problems:
        raise AdapterError(source, f"the adapter does not fit its base '{base.id}': {'; '.join(problems)}")


def _fits(delta: _Delta, shape: tuple[int, ...]) -> bool:
    a, b = delta.a.shape, delta.b.shape
    if len(a) < 2 or len(b) < 2 or a[0] != b[1]:
        return False
    product, weight = (b[0], math.prod(a[1:])), (shape[0], math.prod(shape[1:]))
    return weight == product[::-1] or (weight == product and not delta.is_embedding)


def _copy_files(base: Path, adapter: Path, out: Path) -> None:
    for file in base.iterdir():
        is_wanted = file.suffix in (".json", ".jinja", ".model", ".md") or file.name.startswith(("LICEN", "merges.txt"))
        if file.is_file() and is_wanted and not file.name.endswith(".index.json"):
            shutil.copyfile(file, out / file.name)
    if (base / NAMED).is_dir():
        shutil.copytree(base / NAMED, out / NAMED)
    if _has_template(adapter):
        _drop_template(out)
    for name in _OWN_FILES:
        if (adapter / name).is_file():
            shutil.copyfile(adapter / name, out / name)
    if (adapter / NAMED).is_dir():
        shutil.copytree(adapter / NAMED, out / NAMED)


def _has_template(directory: Path) -> bool:
    try:
        find_template(directory)
    except TemplateFileError as error:
        return (directory / error.file.name).is_file()  # one that is damaged is found again in the merged checkpoint
    return True


def _drop_template(out: Path) -> None:
    """The base's template may lie in a file that wins over the adapter's."""
    for name in (JINJA, JSON):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / NAMED, ignore_errors=True)
    for name in ("processor_config.json", "tokenizer_config.json"):
        if (out / name).is_file():
            document = read_json(out / name)
            if document.pop("chat_template", None) is not None:
                write_json(out / name, document)


def _licence(directory: Path, base: Checkpoint) -> str:
    own = read_licence(directory)
    if own in (UNKNOWN, base.licence):
        return base.licence
    return f"{own} (adapter), {base.licence} (base)"
