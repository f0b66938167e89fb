"""The tokenizer as a bundle or a plain causal LM carries it: without tokens that have no embedding."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

LOGGER = logging.getLogger(__name__)


def tokenizer_json(checkpoint: Checkpoint, n_vocab: int) -> str:
    """Text of a tokenizer.json with all tokens that the checkpoint declares, but for those that have no embedding.

    Some published checkpoints have such a token as a mere placeholder that their processor replaces (``<video>``).
    A prompt that contains its text would otherwise point behind the table; so it is read as plain text. The
    lengths to which a trainer's texts were cut or filled up are left out too.

    Args:
        checkpoint: Where the files are.
        n_vocab: Rows of the embedding table.
    """
    text = checkpoint.directory_tokenizer.text
    document = json.loads(text)
    beyond = beyond_table(document, n_vocab)
    lengths = [name for name in ("truncation", "padding") if document.get(name) is not None]
    if not beyond and not lengths:
        return text
    if beyond:
        LOGGER.info("left out of the tokenizer, having no embedding: %s", ", ".join(sorted(beyond)))
        document["added_tokens"] = [entry for entry in document["added_tokens"] if entry["content"] not in beyond]
    return json.dumps(document | dict.fromkeys(lengths), ensure_ascii=False)


def beyond_table(document: dict[str, Any], n_vocab: int) -> set[str]:
    """Texts of added tokens with an id of ``n_vocab`` or above."""
    return {entry["content"] for entry in document.get("added_tokens") or [] if entry["id"] >= n_vocab}


def tokenizer_settings(checkpoint: Checkpoint, n_vocab: int) -> dict[str, Any]:
    """Content of tokenizer_config.json for a plain causal LM, without the tokens that :func:`tokenizer_json` drops."""
    foreign = ("auto_map", "processor_class", "chat_template")
    fields = {key: value for key, value in checkpoint.tokenizer_config.items() if key not in foreign}
    document = json.loads(checkpoint.directory_tokenizer.text)
    beyond = beyond_table(document, n_vocab)
    if not beyond:
        return fields
    if isinstance(fields.get("added_tokens_decoder"), dict):
        kept = {id_: token for id_, token in fields["added_tokens_decoder"].items() if int(id_) < n_vocab}
        fields["added_tokens_decoder"] = kept
    for name in {"extra_special_tokens", "additional_special_tokens"} & fields.keys():
        fields[name] = _without(fields[name], beyond)
    return fields


def _without(value: Any, beyond: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: text for key, text in value.items() if text not in beyond}
    if isinstance(value, list):
        return [text for text in value if not isinstance(text, str) or text not in beyond]
    return value
