"""The language model alone, as a plain Hugging Face causal-LM directory that both decoder writers read."""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from edge_mllm_export.checkpoint.shard_writer import save_tensors
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.inventory import text_names, text_source
from edge_mllm_export.json_files import write_json
from edge_mllm_export.write.tokenizer_files import tokenizer_json, tokenizer_settings

if TYPE_CHECKING:
    from pathlib import Path

    from edge_mllm_export.checkpoint.checkpoint import Checkpoint
    from edge_mllm_export.families.family import Family

_TOKENIZER_FILES = ("special_tokens_map.json", "generation_config.json")
_HEAD, _EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"


def write_text_checkpoint(checkpoint: Checkpoint, family: Family, directory: Path) -> Path:
    """Write config.json, model.safetensors and the tokenizer files into ``directory`` and return it.

    Tensors keep their dtype and stay in the checkpoint's mapped files while they are copied. A head that equals the
    embedding table is not written twice; a head that differs although the configuration says it is tied is kept, and
    the written configuration says so (this is what transformers does with such a checkpoint).

    Raises:
        OSError: The disk is full.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = dict(family.text_config(checkpoint))
    names = text_names(checkpoint, family)
    if config["tie_word_embeddings"]:
        config["tie_word_embeddings"] = _head_is_embedding(checkpoint, family)
    if config["tie_word_embeddings"]:
        names.pop(_HEAD)
    write_json(directory / "config.json", config)
    tensors = {target: checkpoint.tensor(source) for target, source in names.items()}
    save_tensors(tensors, directory / "model.safetensors")
    _write_tokenizer(checkpoint, directory, config["vocab_size"])
    return directory


def _head_is_embedding(checkpoint: Checkpoint, family: Family) -> bool:
    import torch

    head = text_source(_HEAD, family)
    if head not in checkpoint.tensors:
        return True
    return bool(torch.equal(checkpoint.tensor(head), checkpoint.tensor(text_source(_EMBEDDINGS, family))))


def _write_tokenizer(checkpoint: Checkpoint, directory: Path, n_vocab: int) -> None:
    for name in _TOKENIZER_FILES:
        if (checkpoint.path / name).is_file():
            shutil.copyfile(checkpoint.path / name, directory / name)
    if any((checkpoint.path / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        (directory / "tokenizer.json").write_text(tokenizer_json(checkpoint, n_vocab), encoding="utf-8")
        write_json(directory / "tokenizer_config.json", tokenizer_settings(checkpoint, n_vocab))
    with suppress(CheckpointError):  # a base model has none
        (directory / "chat_template.jinja").write_text(checkpoint.chat_template, encoding="utf-8")
