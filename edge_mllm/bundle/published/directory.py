"""A published directory as a bundle: its files as they are, its specification from its own configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm.arrays import FloatArray
from edge_mllm.bundle.checked import remembered_sha256
from edge_mllm.bundle.files import OpenBundle
from edge_mllm.bundle.numbers import check_numbers
from edge_mllm.bundle.published.files import GraphFile, Stem, choose_files, folder_of
from edge_mllm.bundle.published.rules import FILES, Configuration, find_layout, require, resolve
from edge_mllm.bundle.published.stored_tensor import find_tensor
from edge_mllm.bundle.published.tokenizer import read_settings, read_tokenizer, special_names
from edge_mllm.bundle.spec import (
    SCHEMA_VERSION,
    BundleSpec,
    DecoderSpec,
    ImageSpec,
    Part,
    PromptSpec,
    Source,
    VisionSpec,
)
from edge_mllm.bundle.template_files import FoundTemplate, NoTemplateError, TemplateFileError, find_template
from edge_mllm.errors import BundleError, ModelNotFoundError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_PARTS: dict[Stem, str] = {
    "vision_encoder": "vision",
    "decoder_model_merged": "decoder_onnx",
    "embed_tokens": "embeddings",
}
"""Graph -> its name as a part of a bundle."""


@dataclass(frozen=True)
class PublishedDirectory(OpenBundle):
    """A directory of ONNX files whose configuration has been read."""

    template: FoundTemplate
    """The chat template as the directory has it."""
    picture: str
    """What stands for a picture in a template that takes texts."""
    newline: FloatArray | None
    """float32 [n_embd]: what ends the rows of stitched tiles, from the checkpoint beside the ONNX files."""

    def chat_template(self) -> str:
        """Text of the chat template."""
        return self.template.text

    def read_tokenizer(self) -> Tokenizer:
        """tokenizer.json with the tokens that the files beside it declare."""
        return read_tokenizer(self.path, self.spec.decoder.n_vocab)

    def tower_digest(self) -> bytes:
        """32 bytes that stand for the vision encoder and the engine that runs it. Reads its files."""
        import onnxruntime

        total = hashlib.sha256(f"onnxruntime {onnxruntime.__version__} {self.spec.decoder.n_embd}".encode())
        for name, part in self.spec.parts.items():
            if name.startswith("vision"):
                total.update(remembered_sha256(self.path / part.file).encode())
        if self.newline is not None:
            total.update(self.newline.tobytes())
        return total.digest()

    def digest(self) -> str:
        """SHA-256 over everything that decides what the model says, in hexadecimal. Reads all files."""
        total = hashlib.sha256()
        names = {part.file for part in self.spec.parts.values()} | set(FILES.values())
        for name in sorted(names):
            if (self.path / name).is_file():
                total.update(f"{name} {remembered_sha256(self.path / name)}\n".encode())
        return total.hexdigest()


def is_published(path: Path) -> bool:
    """Whether a directory holds ONNX files of this layout and is no bundle."""
    return path.is_dir() and not (path / "bundle.json").is_file() and folder_of(path) is not None


def read_directory(path: Path, *, precision: str | None = None) -> PublishedDirectory:
    """Read the configuration of a published directory; no graph is loaded, and its tiling is not checked yet.

    Args:
        path: The directory.
        precision: Which files to take, see :func:`edge_mllm.bundle.published.files.choose_files`.

    Raises:
        ModelNotFoundError: It holds no ONNX files of this layout.
        BundleError: A configuration file is damaged, or the model is of a kind that cannot be opened so.
        SettingError: There is no such precision.
    """
    folder = folder_of(path)
    if folder is None:
        raise ModelNotFoundError(path, "there is no decoder_model_merged*.onnx in it")
    configuration = Configuration(path)
    layout = find_layout(configuration)
    require(layout["require"], configuration)
    graphs = choose_files(path, folder, precision)
    decoder = resolve(DecoderSpec, layout["decoder"], configuration)
    newline = _newline(path, layout, decoder.n_embd)
    spec = BundleSpec(
        schema_version=SCHEMA_VERSION,
        name=path.resolve().name,
        source=Source(
            id=path.resolve().name, revision=None, sha256="", licence="see its model card", family=layout["family"]
        ),
        image=resolve(ImageSpec, layout["image"], configuration),
        vision=resolve(VisionSpec, layout["vision"], configuration),
        prompt=_prompt(layout["prompt"], configuration, decoder.n_vocab),
        decoder=decoder,
        parts=_parts(path, graphs) | ({} if newline is None else {"newline": _part(path, newline[0], "")}),
        recipe={},
        verification={},
        created="",
        exporter={},
    )
    check_numbers(path, spec, where="its configuration")
    return PublishedDirectory(
        path,
        spec,
        template=_template(path),
        picture=layout["prompt"].get("picture", spec.prompt.placeholder),
        newline=None if newline is None else newline[1],
    )


def _newline(path: Path, layout: Mapping[str, Any], n_embd: int) -> tuple[Path, FloatArray] | None:
    """The newline embedding and the file that has it, for a layout that stitches."""
    names = layout.get("newline")
    if names is None:
        return None
    found = find_tensor(path, names)
    if found is None:
        reason = "which ends the rows of a picture; the checkpoint's *.safetensors has it, ONNX files have not"
        raise BundleError(path, f"it has no {names[0]}, {reason}")
    if found[1].shape != (n_embd,):
        raise BundleError(path, f"{found[0].name}: {names[0]} is {list(found[1].shape)}, expected [{n_embd}]")
    return found


def _parts(path: Path, graphs: Mapping[Stem, GraphFile]) -> dict[str, Part]:
    parts = {}
    for stem, graph in graphs.items():
        parts[_PARTS[stem]] = _part(path, graph.path, graph.precision)
        for number, data in enumerate(graph.data):
            parts[f"{_PARTS[stem]}_data{number or ''}"] = _part(path, data, graph.precision)
    return parts | {"tokenizer": _part(path, path / "tokenizer.json", "")}


def _part(path: Path, file: Path, precision: str) -> Part:
    if not file.is_file():
        raise BundleError(path, f"the file '{file.name}' is missing")
    return Part(file=file.relative_to(path).as_posix(), sha256="", bytes=file.stat().st_size, precision=precision)


def _prompt(entry: Mapping[str, Any], configuration: Configuration, n_vocab: int) -> PromptSpec:
    """Ids come from tokenizer.json; what config.json declares must be the same."""
    path = configuration.directory
    tokenizer = read_tokenizer(path, n_vocab)
    image_token = configuration.find(*entry["image_token"]["read"]) or entry["image_token"]["default"]
    found = tokenizer.token_to_id(str(image_token))
    if found is None:
        raise BundleError(path, f"tokenizer.json, added_tokens: the token {image_token} is missing")
    declared = configuration.find(*entry["declared"])
    if declared is not None and declared != found:
        raise configuration.error(
            entry["declared"][0], f"is {declared!r}, but {image_token} is {found} in tokenizer.json"
        )
    stops = [*_stop_ids(configuration), *(tokenizer.token_to_id(text) for text in entry["stop_texts"])]
    known = [id_ for id_ in stops if isinstance(id_, int) and 0 <= id_ < n_vocab]
    section = {
        "image_token": image_token,
        "image_token_id": found,
        "placeholder": image_token,
        "layout": entry["layout"],
        "stop_token_ids": list(dict.fromkeys(known)),
        "special_tokens": special_names(read_settings(path)),
    }
    prompt: PromptSpec = resolve(PromptSpec, section, configuration)
    return prompt


def _stop_ids(configuration: Configuration) -> list[Any]:
    ids: list[Any] = []
    for place in ("generation.eos_token_id", "config.eos_token_id", "config.text_config.eos_token_id"):
        value = configuration.find(place)
        ids += value if isinstance(value, list) else [value]
    return ids


def _template(path: Path) -> FoundTemplate:
    try:
        return find_template(path)
    except NoTemplateError as error:
        reason = "it has no chat template (processor_config.json, chat_template.json, .jinja, tokenizer_config.json)"
        raise BundleError(path, reason) from error
    except TemplateFileError as error:
        raise BundleError(path, str(error)) from error
