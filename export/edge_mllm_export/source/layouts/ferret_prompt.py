"""Prompt and tokenizer of Ferret-UI checkpoints in the layout of apple/ml-ferret.

Their code cuts a prompt at "<image>" and tokenises the pieces one by one, without a token for the picture. Every row of
the embedding table is taken, the last one by "<region_fea>", whose place region features take. Without those features
nothing uses that row, so here it is the picture's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.json_files import write_json
from edge_mllm_export.source.layouts.llava_prompt import check_cut
from edge_mllm_export.source.vocabulary import has_slow_files, tokenizer_document
from edge_mllm_export.tokenizer.directory import read_settings
from edge_mllm_export.tokenizer.sentencepiece import convert_sentencepiece

if TYPE_CHECKING:
    from tokenizers import Tokenizer

IMAGE, REGION = "<image>", "<region_fea>"
SYSTEM = (
    "A chat between a human and an AI that understands visuals. "
    "In images, [x, y] denotes points: top-left [0, 0], bottom-right [width-1, height-1]. "
    "Increasing x moves right; y moves down. "
    "Bounding box: [x1, y1, x2, y2]. Image size: 1000x1000. "
    "Follow instructions."
)
"""Of the conversations "ferret_gemma_instruct" and "ferret_llama_3"."""


@dataclass(frozen=True)
class Dialect:
    """How a conversation is written for one kind of language model. ``{}`` is a message."""

    system: str
    user: str
    assistant: str
    asks: str
    """What an answer follows."""
    end: str
    """The token that ends a message."""
    begin: str | None = None
    """A begin token that is written, beside the one that the tokenizer may put before a text."""


DIALECTS = {
    "gemma": Dialect(
        system="{}",
        user="<start_of_turn>user\n{}<end_of_turn>\n",
        assistant="<start_of_turn>model\n{}<end_of_turn>\n<eos>",
        asks="<start_of_turn>model\n",
        end="<end_of_turn>",
    ),
    "llama": Dialect(
        system="<|start_header_id|>system<|end_header_id|>\n\n{}<|eot_id|>",
        user="<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>",
        assistant="<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>",
        asks="<|start_header_id|>assistant<|end_header_id|>\n\n",
        end="<|eot_id|>",
        begin="<|begin_of_text|>",
    ),
}
"""``model_type`` of the language model -> its dialect."""
_DROPPED = ("add_bos_token", "add_eos_token", "chat_template", "processor_class", "sp_model_kwargs", "tokenizer_class")


def chat_template(kind: str, *, begins: int) -> str:
    """The conversation as Jinja.

    Args:
        kind: A key of :data:`DIALECTS`.
        begins: Begin tokens that the tokenizer puts before a text. Where the conversation writes one too, the original
            code has both; here a text that begins with one gets no further one, so all of them are written.
    """
    dialect = DIALECTS[kind]
    begin = "" if dialect.begin is None else dialect.begin * (1 + begins)
    parts = {role: getattr(dialect, role).split("{}") for role in ("system", "user", "assistant")}
    before, after = ({role: part[side] for role, part in parts.items()} for side in (0, 1))
    message = (
        "{{ before[message['role']] }}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<image>\\n' }}"
        "{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}"
        "{{ after[message['role']] }}"
    )
    return (
        f"{{% set before = {json.dumps(before)} %}}{{% set after = {json.dumps(after)} %}}"
        f"{{{{ {json.dumps(begin)} }}}}"
        "{% if messages[0]['role'] != 'system' %}"
        f"{{{{ before['system'] + {json.dumps(SYSTEM)} + after['system'] }}}}"
        f"{{% endif %}}{{% for message in messages %}}{message}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ {json.dumps(dialect.asks)} }}}}{{% endif %}}"
    )


def write_tokenizer(source: Path, out: Path, text: Mapping[str, Any]) -> Tokenizer:
    """Save the tokenizer with a token for pictures in the place of the one for region features.

    Args:
        source: The original checkpoint directory, with tokenizer.json or tokenizer.model.
        out: Where to write tokenizer.json and tokenizer_config.json.
        text: The language model's configuration.

    Raises:
        CheckpointError: There is no tokenizer, one of its tokens is missing, or it cuts text around a picture otherwise
            than the original code does.
    """
    from tokenizers import Tokenizer

    settings_file, settings = source / "tokenizer_config.json", read_settings(source)
    if "auto_map" in settings:
        raise CheckpointError(settings_file, "auto_map", "asks for a tokenizer class with code of its own")
    document = _document(source, settings) | {"truncation": None, "padding": None}
    before = Tokenizer.from_str(json.dumps(document))
    for token in (REGION, DIALECTS[text["model_type"]].end):
        if not 0 <= (before.token_to_id(token) or -1) < text["vocab_size"]:
            raise CheckpointError(source / "tokenizer.json", "added_tokens", f"the token {token} is missing")
    for entry in document["added_tokens"]:
        if entry["content"] == REGION:
            entry["content"] = IMAGE
    kept = {key: value for key, value in settings.items() if key not in _DROPPED}
    written = json.loads(json.dumps(kept).replace(json.dumps(REGION), json.dumps(IMAGE)))
    (out / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    write_json(out / "tokenizer_config.json", written | {"tokenizer_class": "PreTrainedTokenizerFast"})
    after = Tokenizer.from_str(json.dumps(document))
    check_cut(source, before, after)
    return after


def _document(source: Path, settings: dict[str, Any]) -> dict[str, Any]:
    file = source / "tokenizer.json"
    if not file.is_file() and not has_slow_files(source):
        return convert_sentencepiece(source / "tokenizer.model", settings)
    if not file.is_file():
        found: dict[str, Any] = json.loads(tokenizer_document(source))
        return found
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(file, "", f"is no tokenizer ({error})") from error
    return document
