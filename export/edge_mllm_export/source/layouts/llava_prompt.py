"""Prompt and tokenizer of checkpoints in the layouts of Bunny and TinyLLaVA Factory.

Their code cuts a prompt at "<image>" and tokenises the pieces one by one, without a token for the picture. Here the
picture gets one: an added token cuts the text at the same places, and takes a row of the embedding table that nothing
else uses.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.json_files import write_json
from edge_mllm_export.tokenizer.directory import read_settings, save_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

IMAGE, END = "<image>", "<|endoftext|>"
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
"""Of Bunny's conversation "bunny" and of TinyLLaVA's templates "phi" and "qwen2_base"."""
_FILES = (
    *("tokenizer.json", "vocab.json", "merges.txt"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def chat_template(*, trims: bool) -> str:
    """The conversation as Jinja.

    Args:
        trims: A question beside a picture loses the spaces around it.
    """
    text = "{{ item['text'] | trim if pictured else item['text'] }}" if trims else "{{ item['text'] }}"
    return (
        "{% if messages[0]['role'] != 'system' %}{{ " + json.dumps(SYSTEM) + " + ' ' }}{% endif %}"
        "{% for message in messages %}"
        "{% if message['role'] == 'user' %}{{ 'USER: ' }}{% elif message['role'] == 'assistant' %}{{ 'ASSISTANT: ' }}"
        "{% endif %}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% set pictured = message['content'] | selectattr('type', 'equalto', 'image') | list | length > 0 %}"
        "{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<image>\\n' }}"
        "{% elif item['type'] == 'text' %}" + text + "{% endif %}{% endfor %}{% endif %}"
        "{{ '" + END + "' if message['role'] == 'assistant' else ' ' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )


def write_tokenizer(source: Path, out: Path, n_vocab: int, *, may_grow: bool = False) -> Tokenizer:
    """Save the tokenizer with a token for pictures.

    Args:
        source: The original checkpoint directory.
        out: Where to write tokenizer.json and tokenizer_config.json.
        n_vocab: Rows of the embedding table.
        may_grow: Where no row is free, take the id ``n_vocab``: the table gets one row more.

    Raises:
        CheckpointError: There is no tokenizer that runs without code of its own, no free row, or the added token cuts
            text otherwise than the original code does.
    """
    from tokenizers import Tokenizer

    settings, given = source / "tokenizer_config.json", read_settings(source)
    if not any((source / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise CheckpointError(source / "tokenizer.json", "", "is missing; put the language model's tokenizer there")
    if "auto_map" in given:
        raise CheckpointError(settings, "auto_map", "asks for a tokenizer class with code of its own, which is not run")
    for name in _FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    save_tokenizer(out, out)
    document = json.loads((out / "tokenizer.json").read_text(encoding="utf-8")) | {"truncation": None, "padding": None}
    before = Tokenizer.from_str(json.dumps(document))
    if before.token_to_id(END) is None:
        raise CheckpointError(source / "tokenizer.json", "added_tokens", f"the token {END} is missing")
    if before.token_to_id(IMAGE) is None:
        number = max(before.get_vocab(with_added_tokens=True).values()) + 1
        if number >= n_vocab + int(may_grow):
            reason = f"is {n_vocab}: no row of the embedding table is free for {IMAGE}"
            raise CheckpointError(source / "config.json", "vocab_size", reason)
        document["added_tokens"].append({"id": number, "content": IMAGE, **_FLAGS})
        (out / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
        _add_to_settings(out / "tokenizer_config.json", number)
    after = Tokenizer.from_str(json.dumps(document))
    check_cut(source, before, after)
    return after


def _add_to_settings(path: Path, number: int) -> None:
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    settings.setdefault("added_tokens_decoder", {})[str(number)] = {"content": IMAGE, **_FLAGS}
    write_json(path, settings)


def check_cut(source: Path, before: Tokenizer, after: Tokenizer) -> None:
    """A prompt with pictures must give the ids of its pieces, begin tokens behind the first left out.

    Args:
        source: The original checkpoint directory, for the message.
        before: The tokenizer without a token for pictures.
        after: The same with one.

    Raises:
        CheckpointError: It does not.
    """
    pieces = (f"{SYSTEM} USER: ", "\nWhat is this? ", "\n  spaces ASSISTANT:")
    begin, image = before.encode("").ids, after.token_to_id(IMAGE)
    assert image is not None  # noqa: S101  (added before)
    expected = before.encode(pieces[0]).ids
    for piece in pieces[1:]:
        expected = [*expected, image, *before.encode(piece).ids[len(begin) :]]
    if after.encode(IMAGE.join(pieces)).ids != expected:
        reason = "cuts text around a picture otherwise than the original code does"
        raise CheckpointError(source / "tokenizer.json", "", reason)
