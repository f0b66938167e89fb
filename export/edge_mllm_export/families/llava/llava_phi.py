"""LLaVA with a Phi-2, as in Bunny-3B and TinyLLaVA-3.1B: parallel attention, and an output head with a bias.

Checkpoints come here from :mod:`edge_mllm_export.source.layouts.llava`. transformers' LLaVA has an output head without
a bias, so the class is one of this project: LLaVA's with the language model's own head. All else is
:mod:`edge_mllm_export.families.llava.llava`'s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.llava import llava
from edge_mllm_export.families.text_config import resolved_config
from edge_mllm_export.families.text_config import text_config as plain_text_config

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

ARCHITECTURE = "LlavaPhiForConditionalGeneration"


def text_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The language model as a plain causal LM."""
    text = resolved_config(checkpoint).text_config
    if text.model_type != "phi":
        raise CheckpointError("config.json", "text_config.model_type", f"is {text.model_type!r}, expected 'phi'")
    if text.qk_layernorm:
        raise CheckpointError("config.json", "text_config.qk_layernorm", "is true, which llama.cpp does not do here")
    return plain_text_config(checkpoint)


def model_class() -> Any:
    """The reference, which transformers does not have."""
    from edge_mllm_export.families.llava.phi_model import LlavaPhiForConditionalGeneration

    return LlavaPhiForConditionalGeneration


FAMILY = replace(
    llava.FAMILY,
    name="llava_phi",
    architectures=(ARCHITECTURE,),
    text_config=text_config,
    model_class=model_class,
    published=None,
    checkpoints=("BAAI/Bunny-v1_0-3B", "tinyllava/TinyLLaVA-Phi-2-SigLIP-3.1B"),
)
