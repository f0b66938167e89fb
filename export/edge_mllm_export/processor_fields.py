"""Fields of Hugging Face processor files that several families share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_args

from edge_mllm.bundle import Resample
from edge_mllm_export.errors import CheckpointError

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint import Checkpoint

Triple = tuple[float, float, float]

PILLOW_FILTERS: dict[int, Resample] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}
"""Values of ``PIL.Image.Resampling``, which is what the ``resample`` field holds."""

_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


def resample_name(processor: dict[str, Any], *, default: Resample) -> Resample:
    """The resize filter by name.

    Raises:
        CheckpointError: The field is not one of Pillow's six filters.
    """
    value = processor.get("resample", default)
    if isinstance(value, str) and value in get_args(Resample):
        return value  # type: ignore[return-value]
    if not isinstance(value, int) or value not in PILLOW_FILTERS:
        raise CheckpointError("preprocessor_config.json", "resample", f"is {value!r}, expected 0 to 5")
    return PILLOW_FILTERS[value]


def affine(processor: dict[str, Any]) -> tuple[float, Triple, Triple]:
    """Rescale factor, mean and standard deviation; steps that are switched off become the identity.

    Raises:
        CheckpointError: Resizing is switched off, or mean and standard deviation are not three numbers.
    """
    for step in ("do_resize", "do_pad"):
        if not processor.get(step, True):
            raise CheckpointError(
                "preprocessor_config.json", step, "is false, which no released model of this kind uses"
            )
    rescale = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    if not _is_number(rescale) or not rescale > 0:
        raise CheckpointError(
            "preprocessor_config.json", "rescale_factor", f"is {rescale!r}, expected a number above 0"
        )
    rescale = float(rescale)
    if not processor.get("do_normalize", True):
        return rescale, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return rescale, _triple(processor, "image_mean"), _triple(processor, "image_std")


def _triple(processor: dict[str, Any], field: str) -> Triple:
    values = processor.get(field, [0.5, 0.5, 0.5])
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(map(_is_number, values)):
        raise CheckpointError("preprocessor_config.json", field, f"is {values!r}, expected three numbers")
    if field == "image_std" and not min(values) > 0:
        raise CheckpointError("preprocessor_config.json", field, f"is {values!r}, expected numbers above 0")
    return float(values[0]), float(values[1]), float(values[2])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def given(processor: dict[str, Any], *fields: str) -> dict[str, Any]:
    """Those of the fields that are there and not null; the processor's class has defaults for the others."""
    return {field: processor[field] for field in fields if processor.get(field) is not None}


def special_tokens(checkpoint: Checkpoint) -> dict[str, str]:
    """bos_token, eos_token, ... as text, from tokenizer_config.json."""
    found: dict[str, str] = {}
    for name in _SPECIAL:
        value = checkpoint.tokenizer_config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text
    return found


def stop_tokens(checkpoint: Checkpoint, *texts: str) -> tuple[int, ...]:
    """Ids that end an answer: generation_config.json's, config.json's, and of ``texts`` those in the vocabulary."""
    ids: list[int] = []
    text = checkpoint.config.get("text_config") or {}
    for file, field, config in (
        ("generation_config.json", "eos_token_id", checkpoint.generation),
        ("config.json", "eos_token_id", checkpoint.config),
        ("config.json", "text_config.eos_token_id", text),
    ):
        value = config.get("eos_token_id")
        found = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(id_, int) and not isinstance(id_, bool) for id_ in found):
            raise CheckpointError(file, field, f"is {value!r}, expected a token id or a list of them")
        ids += found
    vocabulary = checkpoint.tokenizer()
    ids += [id_ for text in texts if (id_ := vocabulary.token_to_id(text)) is not None]
    size = vocabulary.get_vocab_size(with_added_tokens=True)
    return tuple(dict.fromkeys(int(id_) for id_ in ids if 0 <= id_ < size))
