"""Bundles of tiny checkpoints of other families than the starter's, as phones run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_PLAIN: dict[str, Any] = {"quant": "f32", "vision": "fp32"}
_OPTIONS: dict[str, dict[str, Any]] = {
    "internvl": {"quant": "int8_b32", "vision": "int8", "prompt_weights": "int8", "calibration": False},
    "qwen2_5_vl": {"quant": "int4_b32", "vision": "fp16", "calibration": False},
    "qwen3_vl": {"quant": "int4_b32", "vision": "int8", "prompt_weights": "int8", "calibration": False},
}
"""An aspect grid with weights for prompts; any resolution with windows and M-RoPE; rows for further layers."""


def exported(family: str, folder: Path) -> Path:
    """Export the tiny checkpoint of a family to a bundle below a folder; done once."""
    from family_makers import make_tiny

    from edge_mllm_export import ExportOptions, export_bundle

    bundle = folder / f"{family}.edge"
    if not bundle.exists():
        options = ExportOptions(format="onnx", verify=False, **_OPTIONS.get(family, _PLAIN))
        spec = export_bundle(str(make_tiny(family, folder)), bundle, options)
        assert not spec.recipe["decoder_onnx"]["phone_gaps"]
    return bundle
