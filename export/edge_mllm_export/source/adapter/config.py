"""adapter_config.json of a LoRA adapter, and which adapters can be merged into plain weights."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mllm_export.errors import AdapterError
from edge_mllm_export.json_files import read_json

FILE = "adapter_config.json"

_UNDERSTOOD = {
    *(
        "peft_type",
        "peft_version",
        "task_type",
        "auto_mapping",
        "inference_mode",
        "base_model_name_or_path",
        "revision",
    ),
    *("r", "lora_alpha", "lora_dropout", "use_rslora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "bias"),
    *(
        "target_modules",
        "exclude_modules",
        "modules_to_save",
        "layers_to_transform",
        "layers_pattern",
        "ensure_weight_tying",
    ),
    *("init_lora_weights", "megatron_core", "loftq_config", "eva_config", "runtime_config", "qalora_group_size"),
}
"""Fields that are used here, or that only mattered while training. Any other field that is set is refused."""

_KINDS = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "alora_invocation_tokens": "activated LoRA",
    "lora_bias": "LoRA bias",
}
_PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal", None)
"""Ways of initialising that leave the base's weights as they are; PiSSA, OLoRA, CorDA and LoftQ do not."""


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """The part of adapter_config.json that merging needs."""

    base: str
    """Directory or hub id of the base model."""
    revision: str | None
    alpha: float
    rank_stabilised: bool
    alpha_pattern: dict[str, float]
    """Pattern for the end of a module's name -> its own alpha."""

    def scaling(self, module: str, rank: int) -> float:
        """Return the factor of B A for one module: alpha / r, or alpha / sqrt(r) when rank-stabilised (rsLoRA)."""
        alpha = next(
            (value for key, value in self.alpha_pattern.items() if re.match(rf"(.*\.)?({key})$", module)), self.alpha
        )
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def read_adapter_config(source: str, directory: Path) -> AdapterConfig:
    """Read and check adapter_config.json.

    Args:
        source: The SOURCE argument, for messages.
        directory: The adapter.

    Raises:
        AdapterError: It is no LoRA adapter, uses something that cannot be merged, or does not name its base.
        CheckpointError: The file is damaged.
    """
    fields = read_json(directory / FILE)
    if fields.get("peft_type") != "LORA":
        raise AdapterError(source, f"the adapter is of kind {fields.get('peft_type')!r}; only LoRA can be merged")
    strange = sorted(name for name, value in fields.items() if value and name not in _UNDERSTOOD)
    if strange:
        names = ", ".join(_KINDS.get(name, name) for name in strange)
        raise AdapterError(source, f"the adapter uses {names}, which is not merged here; {_OWN}")
    start = fields.get("init_lora_weights")
    if start not in _PLAIN_STARTS:
        raise AdapterError(source, f"the adapter started as {start!r}, which changes its base too; {_OWN}")
    base = fields.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise AdapterError(source, f"{FILE} does not say which base it belongs to (base_model_name_or_path)")
    return AdapterConfig(
        base=base,
        revision=fields.get("revision") or None,
        alpha=_number(source, "lora_alpha", fields.get("lora_alpha", 8)),
        rank_stabilised=bool(fields.get("use_rslora")),
        alpha_pattern={
            key: _number(source, f"alpha_pattern.{key}", value)
            for key, value in (fields.get("alpha_pattern") or {}).items()
        },
    )


_OWN = "merge it with peft (merge_and_unload, save_pretrained) and export the result"


def _number(source: str, field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise AdapterError(source, f"{FILE}, {field}: is {value!r}, expected a number")
    return float(value)
