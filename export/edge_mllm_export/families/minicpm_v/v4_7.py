"""MiniCPM-V 4.7: MiniCPM-V 4.6 whose pictures are canvases of rotary positions.

The class is transformers' ``MiniCPMV4_7ForConditionalGeneration``. Slices, tower and prompt are those of 4.6; a token's
three positions are its time, its row and its column on the canvas of its picture, marks included
(:mod:`edge_mllm.prompt.canvas`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.minicpm_v import v4_6
from edge_mllm_export.families.processor_fields import special_tokens
from edge_mllm_export.families.text_config import TIME_LAST, text_config

if TYPE_CHECKING:
    from edge_mllm.bundle.spec import DecoderSpec, PromptSpec
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

_ROTARY = "text_config.rope_parameters.mrope_section"
_SECTIONS = (11, 11, 10)
"""What the language model's class uses where config.json names none."""
_IDS = {
    "image_start_id": "image_start_token",
    "image_end_id": "image_end_token",
    "slice_start_id": "slice_start_token",
    "slice_end_id": "slice_end_token",
}
"""Fields of config.json -> names of the same tokens in the tokenizer's settings."""
_LINE = "newline_id"


def prompt_spec(checkpoint: Checkpoint) -> PromptSpec:
    """4.6's, with the tokens that belong to a picture's canvas where they follow it.

    Raises:
        CheckpointError: config.json does not name them, or has other ids than the tokenizer.
    """
    found, names = v4_6.prompt_spec(checkpoint), special_tokens(checkpoint)
    marks = [_checked(checkpoint, field, checkpoint.token_id(names[name]), names[name]) for field, name in _IDS.items()]
    lines = checkpoint.tokenizer().encode("\n", add_special_tokens=False).ids
    if len(lines) != 1:
        raise CheckpointError("tokenizer.json", "model", f"a newline is {len(lines)} tokens, expected one")
    return replace(found, canvas_marks=(*marks, _checked(checkpoint, _LINE, lines[0], "newline")))


def _checked(checkpoint: Checkpoint, field: str, number: int, token: str) -> int:
    given = checkpoint.integer(field)
    if given != number:
        raise CheckpointError("config.json", field, f"is {given}, but the tokenizer's {token} is {number}")
    return number


def decoder_spec(checkpoint: Checkpoint) -> DecoderSpec:
    """Dimensions of the language model.

    Raises:
        CheckpointError: No layer keeps a state: without one the cache is kept token by token, and a mark before a
            picture has another position than the same token in a text.
    """
    found = replace(v4_6.decoder_spec(checkpoint), positions="canvas", mrope_sections=_sections(checkpoint))
    if found.state_layers is None:
        reason = "names no layer of linear_attention, which all language models with canvas positions have"
        raise CheckpointError("config.json", "text_config.layer_types", reason)
    return found


def _sections(checkpoint: Checkpoint) -> tuple[int, ...]:
    config = v4_6.config_of(checkpoint).text_config
    rotary = config.rope_parameters or {}
    sections = _SECTIONS if rotary.get("mrope_section") is None else v4_6.sections(config)
    half = int(config.head_dim * rotary.get("partial_rotary_factor", 1.0)) // 2
    if sum(sections) != half:
        reason = f"is {list(sections)}, but there are {half} rotary frequencies to share"
        raise CheckpointError("config.json", _ROTARY, reason)
    return sections


def language_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The language model as a plain causal LM. Engines that order cells by time get it as an axis of its own."""
    fields = text_config(checkpoint, v4_6.config_of)
    sections = {"mrope_section": list(_sections(checkpoint)), "mrope_interleaved": True}
    return {**fields, "rope_parameters": {**fields["rope_parameters"], **sections}, TIME_LAST: True}


FAMILY = replace(
    v4_6.FAMILY,
    name="minicpm_v_4_7",
    architectures=("MiniCPMV4_7ForConditionalGeneration",),
    prompt=prompt_spec,
    decoder=decoder_spec,
    text_config=language_config,
    mmproj=None,
    checkpoints=("openbmb/MiniCPM-V-4.7-1B",),
    licence="see each checkpoint",
)
