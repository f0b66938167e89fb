"""A tokenizer.json for checkpoints that were saved with older files: vocab.json and merges.txt, or tokenizer.model."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.json_files import read_json
from edge_mllm_export.tokenizer.sentencepiece import convert_sentencepiece

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FAST, SLOW, PIECES = "tokenizer.json", ("vocab.json", "merges.txt"), "tokenizer.model"
_SETTINGS = "tokenizer_config.json"
_CLASSES = ("Tokenizer", "TokenizerFast")


def with_tokenizer_json(path: Path, scratch: Path) -> Path:
    """The checkpoint directory, or one in ``scratch`` with links to its files and a tokenizer.json beside them.

    Raises:
        CheckpointError: The tokenizer needs code of its own, or its files are damaged.
    """
    if (path / FAST).is_file() or not (has_slow_files(path) or (path / PIECES).is_file()):
        return path
    text = tokenizer_document(path)
    directory = Path(tempfile.mkdtemp(prefix="tokenizer-", dir=scratch))
    for file in path.iterdir():
        (directory / file.name).symlink_to(file.resolve())
    (directory / FAST).write_text(text, encoding="utf-8")
    return directory


def has_slow_files(path: Path) -> bool:
    """Whether byte-level BPE's older files are there."""
    return all((path / name).is_file() for name in SLOW)


def tokenizer_document(path: Path) -> str:
    """The text of tokenizer.json for a directory that has none.

    Raises:
        CheckpointError: The tokenizer needs code of its own, or its files are damaged.
    """
    if has_slow_files(path):
        return str(slow_tokenizer(path).backend_tokenizer.to_str())  # type: ignore[attr-defined]
    return json.dumps(convert_sentencepiece(path / PIECES, settings_without_code(path)), ensure_ascii=False)


def slow_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Transformers' tokenizer of a directory, none of whose code is run.

    Where transformers knows none for the model, as for a LLaVA with a Qwen2's vocabulary, it is of the class that
    tokenizer_config.json names.

    Raises:
        CheckpointError: It needs code of its own, or its files are damaged or too few.
    """
    import transformers

    kind = str(settings_without_code(path).get("tokenizer_class"))
    named = getattr(transformers, kind, None) if kind.endswith(_CLASSES) else None
    try:
        return _load(transformers.AutoTokenizer, path)
    except Exception as error:  # transformers and tokenizers raise many classes for a damaged file
        if named is not None:
            with suppress(Exception):
                return _load(named, path)
        reason = f"is no vocabulary from which transformers makes a tokenizer ({' '.join(str(error).split())[:200]})"
        raise CheckpointError(path / SLOW[0], "", reason) from error


def _load(kind: Any, path: Path) -> PreTrainedTokenizerBase:
    return kind.from_pretrained(path, trust_remote_code=False)  # type: ignore[no-any-return]


def settings_without_code(path: Path) -> dict[str, Any]:
    """tokenizer_config.json, or empty.

    Raises:
        CheckpointError: It asks for a class with code of its own.
    """
    settings = read_json(path / _SETTINGS) if (path / _SETTINGS).is_file() else {}
    if "auto_map" in settings:
        raise CheckpointError(
            path / _SETTINGS, "auto_map", "asks for a tokenizer class with code of its own, which is not run"
        )
    return settings
