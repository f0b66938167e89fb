"""From a Hugging Face checkpoint to a verified bundle: ``export_bundle`` and its options."""

from edge_mllm_export.options import ExportOptions, Limits
from edge_mllm_export.pipeline import export_bundle
from edge_mllm_quant.recipes.override import parse_override

__all__ = ["ExportOptions", "Limits", "export_bundle", "parse_override"]
