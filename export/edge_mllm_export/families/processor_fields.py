"""Tokens of a checkpoint's prompt, and what several families ask of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import PromptSpec, TileLayout
from edge_mllm_export.errors import CheckpointError

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint


def image_prompt(checkpoint: Checkpoint, image_token: str, layout: TileLayout, end: str, *fields: str) -> PromptSpec:
    """Token ids of a model that puts visual tokens in the place of its picture token.

    Args:
        checkpoint: Its tokenizer must have the picture token.
        image_token: As the chat template writes it.
        layout: The text around tiles.
        end: The token that ends a turn, beside those that the configurations name.
        *fields: Of config.json; the first that is there must be the token's id.

    Raises:
        CheckpointError: There is no such token, or config.json has another id.
    """
    image_token_id = checkpoint.token_id(image_token)
    declared = next((checkpoint.config[field] for field in fields if field in checkpoint.config), image_token_id)
    if declared != image_token_id:
        reason = f"is {declared}, but the tokenizer's {image_token} is {image_token_id}"
        raise CheckpointError("config.json", fields[0], reason)
    return PromptSpec(
        image_token=image_token,
        image_token_id=image_token_id,
        placeholder=image_token,
        layout=layout,
        stop_token_ids=stop_tokens(checkpoint, end),
        special_tokens=special_tokens(checkpoint),
    )


def decided_counts(checkpoint: Checkpoint, counts: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence for every setting of the processor that says another size than the model has.

    The processor only reckons with them, and transformers stops where they do not fit the model; the model's are used.

    Args:
        checkpoint: Where the files are.
        counts: Name -> the model's value, see :attr:`Family.counts <edge_mllm_export.families.family.Family.counts>`.
    """
    file, prefix = checkpoint.processor_place
    places = (("processor_config.json", "", checkpoint.processor_settings), (file, prefix, checkpoint.processor))
    return tuple(
        f"{place}, {before}{name}: is {settings[name]!r}, the model's {value!r} is used"
        for name, value in counts.items()
        for place, before, settings in places
        if settings.get(name) is not None and settings[name] != value
    )


def special_tokens(checkpoint: Checkpoint) -> dict[str, str]:
    """bos_token, eos_token, ... as text, as transformers hands them to a chat template."""
    return dict(checkpoint.directory_tokenizer.names)


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
