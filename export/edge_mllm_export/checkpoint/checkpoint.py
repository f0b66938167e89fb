"""A local checkpoint directory, opened without loading its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.template_files import FoundTemplate, TemplateFileError, find_template
from edge_mllm_export.checkpoint.config_limits import check_config, check_processor
from edge_mllm_export.checkpoint.licence import read_licence
from edge_mllm_export.checkpoint.quantised import refuse_quantised, refuse_quantised_tensors
from edge_mllm_export.checkpoint.tensor_store import TensorInfo, pointers, read_inventory, read_tensor, weight_files
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.json_files import read_json
from edge_mllm_export.tokenizer.directory import DirectoryTokenizer, read_directory_tokenizer

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

_MISSING = object()


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
    processor_place: tuple[str, str] = ("preprocessor_config.json", "")
    """The file that they are in, and what their names begin with there."""
    processor_settings: dict[str, Any]
    """Processor-level keys of processor_config.json, such as ``image_seq_len``."""
    generation: dict[str, Any]
    """generation_config.json, or empty."""
    tokenizer_config: dict[str, Any]
    tensors: Mapping[str, TensorInfo]
    """Tensor name in the current transformers layout -> shape, dtype and file."""
    origin: Path | None = None
    """The directory as it was published, where ``path`` is a rewriting of it in transformers' layout."""

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
    def template(self) -> FoundTemplate:
        """The chat template that transformers takes from these files, and where it is.

        Raises:
            CheckpointError: The checkpoint has none (a base model), or one that nobody can use.
        """
        try:
            return find_template(self.path)
        except TemplateFileError as error:
            raise CheckpointError(error.file, error.field, error.reason) from error

    @property
    def chat_template(self) -> str:
        """The Jinja source of the chat template.

        Raises:
            CheckpointError: As for :attr:`template`.
        """
        return self.template.text

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer of tokenizer.json with the tokens that the files beside it declare.

        Raises:
            CheckpointError: The file is missing or is not a tokenizer.
        """
        return self.directory_tokenizer.backend

    @cached_property
    def directory_tokenizer(self) -> DirectoryTokenizer:
        """The tokenizer that the files give, as text and opened.

        Raises:
            CheckpointError: As for :meth:`tokenizer`.
        """
        return read_directory_tokenizer(self.path)

    def token_id(self, text: str) -> int:
        """Return the id of a token that must be in the vocabulary.

        Raises:
            CheckpointError: It is not, or its id lies outside config.json's ``text_config.vocab_size``.
        """
        found = self.tokenizer().token_to_id(text)
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
    refuse_pointers(path)
    config = read_json(path / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(path / "config.json", "model_type", "is missing or not a text")
    refuse_quantised(id or str(path), config, path)
    check_config(path / "config.json", config)
    processor, settings = read_processor(path)
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
        processor_place=processor_place(path),
        processor_settings=settings,
        generation=_read_optional(path / "generation_config.json"),
        tokenizer_config=_read_optional(path / "tokenizer_config.json"),
        tensors=tensors,
    )


def refuse_pointers(path: Path) -> None:
    """Refuse a clone whose large files were not fetched.

    Raises:
        CheckpointError: Files of the directory are Git LFS pointers.
    """
    found = pointers(path)
    if found:
        names = ", ".join(found)
        raise CheckpointError(
            path, "", f"holds Git LFS pointers in place of {names}; fetch the files with 'git lfs pull'"
        )


def describe_checkpoint(path: Path, id: str, documents: Mapping[str, Mapping[str, Any]]) -> Checkpoint:
    """A checkpoint of configuration files alone, for questions about its shape.

    Args:
        path: Where they are, for messages.
        id: What to call it.
        documents: "config", "preprocessor_config" and "processor_config".

    Raises:
        CheckpointError: A size in them cannot be true.
    """
    config, processor, settings = (
        json.loads(json.dumps(documents[name])) for name in ("config", "preprocessor_config", "processor_config")
    )
    check_config(path / "config.json", config)
    check_processor(path / "preprocessor_config.json", processor)
    return Checkpoint(
        path=path,
        id=id,
        revision=None,
        licence="unknown",
        random_weights=False,
        config=config,
        processor=processor,
        processor_settings=settings,
        generation={},
        tokenizer_config={},
        tensors={},
    )


def _read_optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.exists() else {}


def read_processor(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The image processor's settings and the processor's own.

    Read as transformers does: the nested part of processor_config.json wins over preprocessor_config.json.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    settings = _read_optional(path / "processor_config.json")
    nested = settings.pop("image_processor", None)
    if nested is not None and not isinstance(nested, dict):
        raise CheckpointError(path / "processor_config.json", "image_processor", "is not a JSON object")
    return nested or read_json(path / "preprocessor_config.json"), settings


def processor_place(path: Path) -> tuple[str, str]:
    """Which file of a directory :func:`read_processor` takes settings from, and what their names begin with there."""
    nested = _read_optional(path / "processor_config.json").get("image_processor")
    return ("processor_config.json", "image_processor.") if nested else ("preprocessor_config.json", "")
