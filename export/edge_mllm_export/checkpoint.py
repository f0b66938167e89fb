"""A local checkpoint directory, opened without loading its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm_export.config_limits import check_config, check_processor
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.licence import read_licence
from edge_mllm_export.quantised_source import refuse_quantised, refuse_quantised_tensors
from edge_mllm_export.tensor_store import TensorInfo, read_inventory, read_tensor, weight_files

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

_MISSING = object()
_JSON_LIMIT = 1 << 26
"""Bytes; a configuration file above this is not read. The largest published tokenizer.json files have about 35 MB."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint's configuration files and a lazy view of its tensors."""

    path: Path
    id: str
    """Hub id, ``shape:NAME`` or the directory's name."""
    revision: str | None
    """Commit on the hub, when it came from there."""
    licence: str
    """SPDX-like id from the model card, or "unknown"."""
    random_weights: bool
    config: dict[str, Any]
    """config.json."""
    processor: dict[str, Any]
    """The image processor's settings, from where transformers takes them."""
    processor_settings: dict[str, Any]
    """Processor-level keys of processor_config.json, such as ``image_seq_len``."""
    generation: dict[str, Any]
    """generation_config.json, or empty."""
    tokenizer_config: dict[str, Any]
    tensors: Mapping[str, TensorInfo]
    """Tensor name in the current transformers layout -> shape, dtype and file."""

    def tensor(self, name: str) -> torch.Tensor:
        """Read one tensor, in its stored dtype and shape.

        Raises:
            CheckpointError: There is no such tensor, or its file cannot be read.
        """
        if name not in self.tensors:
            raise CheckpointError(self.path, f"tensor {name}", "is missing")
        return read_tensor(self.tensors[name])

    def field(self, dotted: str, default: Any = _MISSING) -> Any:
        """Return a value of config.json, for example ``field("text_config.hidden_size")``.

        Raises:
            CheckpointError: It is absent and there is no default.
        """
        value: Any = self.config
        for part in dotted.split("."):
            value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
        if value is not _MISSING:
            return value
        if default is _MISSING:
            raise CheckpointError(self.path / "config.json", dotted, "is missing")
        return default

    def integer(self, dotted: str, default: Any = _MISSING) -> int:
        """Return a whole number of at least 1 from config.json.

        Raises:
            CheckpointError: It is absent without a default, or is something else.
        """
        value = self.field(dotted, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(self.path / "config.json", dotted, f"is {value!r}, expected a whole number above 0")
        return value

    @cached_property
    def chat_template(self) -> str:
        """The Jinja source of the chat template.

        Raises:
            CheckpointError: The checkpoint has none (a base model).
        """
        return _read_chat_template(self.path, self.tokenizer_config)

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer of tokenizer.json.

        Raises:
            CheckpointError: The file is missing or is not a tokenizer.
        """
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        file = self.path / "tokenizer.json"
        if not file.is_file():
            raise CheckpointError(file, "", "is missing; save the tokenizer with a current transformers")
        try:
            return Tokenizer.from_str(file.read_text(encoding="utf-8"))
        except Exception as error:  # tokenizers raises plain Exception
            raise CheckpointError(file, "", f"is no tokenizer ({error})") from error

    def token_id(self, text: str) -> int:
        """Return the id of a token that must be in the vocabulary.

        Raises:
            CheckpointError: It is not, or its id lies outside config.json's ``text_config.vocab_size``.
        """
        found = self._tokenizer.token_to_id(text)
        if found is None:
            raise CheckpointError(self.path / "tokenizer.json", "added_tokens", f"the token {text} is missing")
        size = self.field("text_config.vocab_size", None)
        if isinstance(size, int) and found >= size:
            reason = f"is {size}, but the tokenizer's {text} has the id {found}"
            raise CheckpointError(self.path / "config.json", "text_config.vocab_size", reason)
        return int(found)

    def sha256(self) -> str:
        """Hash of everything that decides what the model says: configuration, tokenizer and weights, hex."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        files = {*weight_files(self.path), *self.path.glob("*.json"), *self.path.glob("*.jinja")}
        total = hashlib.sha256()
        for path in sorted(files):
            with path.open("rb") as file:
                total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return total.hexdigest()


def open_checkpoint(
    path: Path, *, id: str | None = None, revision: str | None = None, random_weights: bool = False
) -> Checkpoint:
    """Open a checkpoint directory.

    Args:
        path: Directory with config.json and safetensors weights.
        id: What to call it; the directory's name when absent.
        revision: Commit on the hub.
        random_weights: The weights mean nothing (``shape:`` sources).

    Raises:
        CheckpointError: A file is missing or damaged, or a field cannot be true; the message names both.
        SourceError: The checkpoint is already quantised.
    """
    config = read_json(path / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(path / "config.json", "model_type", "is missing or not a text")
    refuse_quantised(id or str(path), config)
    check_config(path / "config.json", config)
    processor, settings = _read_processor(path)
    check_processor(path / "preprocessor_config.json", processor)
    tensors = read_inventory(path, config["model_type"])
    refuse_quantised_tensors(id or str(path), tensors)
    return Checkpoint(
        path=path,
        id=id or path.resolve().name,
        revision=revision,
        licence="none (random weights)" if random_weights else read_licence(path),
        random_weights=random_weights,
        config=config,
        processor=processor,
        processor_settings=settings,
        generation=_read_optional(path / "generation_config.json"),
        tokenizer_config=_read_optional(path / "tokenizer_config.json"),
        tensors=tensors,
    )


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: The file is missing, too large, or holds something else.
    """
    try:
        if file.stat().st_size > _JSON_LIMIT:
            raise CheckpointError(file, "", "is too large for a configuration file")
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(file, "", "is missing") from None
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(file, "", f"is not JSON ({' '.join(str(error).split())})") from error
    if not isinstance(document, dict):
        raise CheckpointError(file, "", "is not a JSON object")
    return document


def _read_optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.exists() else {}


def _read_processor(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read as transformers does: the nested part of processor_config.json wins over preprocessor_config.json."""
    settings = _read_optional(path / "processor_config.json")
    nested = settings.pop("image_processor", None)
    if nested is not None and not isinstance(nested, dict):
        raise CheckpointError(path / "processor_config.json", "image_processor", "is not a JSON object")
    return nested or read_json(path / "preprocessor_config.json"), settings


def _read_chat_template(path: Path, tokenizer_config: dict[str, Any]) -> str:
    jinja = path / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    for found in (_read_optional(path / "chat_template.json"), tokenizer_config):
        template = found.get("chat_template")
        if isinstance(template, list):  # several named templates, as older tokenizers have them
            named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
            template = named.get("default")
        if isinstance(template, str) and template:
            return template
    raise CheckpointError(jinja, "chat_template", "is missing; is this a base model? take its instruct version")
