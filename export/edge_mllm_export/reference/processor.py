"""Messages and pictures to a model's inputs, as somebody does it who uses transformers and not this project.

The processor is the directory's own (:mod:`edge_mllm_export.reference.own_processor`). Kinds of models that
transformers does not have, and directories that need code of their own, have one written from the publisher's code; the
report names which it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edge_mllm.errors import SettingError
from edge_mllm_export.json_files import read_json
from edge_mllm_export.reference.own_processor import load_own_processor, processor_class
from edge_mllm_export.reference.tokenizer_choice import choose_tokenizer
from edge_mllm_export.source.layouts.ferret import is_ferret_original
from edge_mllm_export.source.layouts.internvl_chat import is_internvl_chat

if TYPE_CHECKING:
    from PIL.Image import Image

    from edge_mllm.prompt.template import Message
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint
    from edge_mllm_export.families.family import Family


class Processor(Protocol):
    """What makes a model's inputs."""

    @property
    def tokenizer(self) -> Any:
        """With transformers' interface."""
        ...

    @property
    def places(self) -> Sequence[str]:
        """Tokens that it replaces by pictures, videos or sound."""
        ...

    @property
    def described(self) -> Mapping[str, Any]:
        """What it is and what was decided, for the report of a verification."""
        ...

    def inputs(self, messages: Sequence[Message], pictures: Sequence[Image], *, generate: bool = True) -> Any:
        """input_ids [1, n] and the pictures' tensors, as a transformers ``BatchFeature`` of torch tensors.

        Args:
            messages: Roles and contents, an item ``{"type": "image"}`` for every picture.
            pictures: In the order of those items.
            generate: End where the model's answer begins.
        """
        ...


def load_processor(checkpoint: Checkpoint, family: Family) -> Processor:
    """The processor that a checkpoint is compared with.

    Raises:
        VerificationError: transformers cannot load the directory's own.
        CheckpointError: Its tokenizer cannot be loaded.
    """
    if checkpoint.origin is not None:
        return publishers_processor(checkpoint, family)
    if family.reference_processor is not None:
        written: Processor = family.reference_processor(checkpoint)
        return written
    return DirectoryProcessor(checkpoint, family)


def publishers_processor(checkpoint: Checkpoint, family: Family) -> Processor:
    """The processor of a directory whose layout was rewritten, with its original tokenizer files.

    Raises:
        CheckpointError: The original files cannot be read.
    """
    from edge_mllm_export.families.ferret_ui.family import image_processor_settings as ferret_settings
    from edge_mllm_export.reference.publishers.ferret_original import ferret_original_processor
    from edge_mllm_export.reference.publishers.internvl_chat import internvl_chat_processor
    from edge_mllm_export.reference.publishers.llava_original import llava_original_processor

    assert checkpoint.origin is not None  # noqa: S101  (looked at by the caller)
    config = read_json(checkpoint.origin / "config.json")
    if is_internvl_chat(config):
        tagged = bool(checkpoint.processor_settings.get("tile_tags", False))
        return internvl_chat_processor(checkpoint.origin, config, tagged=tagged)
    vision, image_token_id = family.vision(checkpoint), family.prompt(checkpoint).image_token_id
    tokens = vision.tokens_per_tile
    if is_ferret_original(config):
        return ferret_original_processor(
            checkpoint.origin,
            config,
            settings=ferret_settings(checkpoint),
            side=vision.tile_width,
            tokens=tokens,
            image_token_id=image_token_id,
        )
    return llava_original_processor(
        checkpoint.origin, config, side=vision.tile_width, tokens=tokens, image_token_id=image_token_id
    )


@dataclass(frozen=True)
class _Template:
    """The template in use; None leaves it to the processor."""

    text: str | None
    takes_items: bool


class DirectoryProcessor:
    """The directory's own processor, with the calls that transformers' documentation shows."""

    def __init__(self, checkpoint: Checkpoint, family: Family) -> None:
        choice = choose_tokenizer(checkpoint.path)
        counts = {} if family.counts is None else family.counts(checkpoint)
        kind = processor_class(checkpoint.path)
        if family.adapt_processor is not None:
            kind = family.adapt_processor(checkpoint, kind)
        self.processor, taken = load_own_processor(checkpoint.path, kind, choice.tokenizer, counts)
        self.tokenizer = self.processor.tokenizer
        self._options = {} if family.processor_options is None else family.processor_options(checkpoint)
        self._picture = family.picture or family.prompt(checkpoint).placeholder
        own = getattr(self.processor, "chat_template", None) is not None
        text = None if own else self.tokenizer.get_chat_template()
        self._template = _Template(text, family.content_kind(checkpoint) == "items")
        self.described: Mapping[str, Any] = {
            "class": type(self.processor).__name__,
            "image_processor": type(self.processor.image_processor).__name__,
            "tokenizer": {**choice.described, **_tokens(checkpoint, family.decoder(checkpoint).n_vocab)},
            "template": checkpoint.template.described | {"content": "items" if self._template.takes_items else "text"},
            "counts_of_the_model": taken,
        }

    @property
    def places(self) -> Sequence[str]:
        """As :class:`Processor` says."""
        return [token for token in self.processor.all_special_multimodal_tokens if token]

    def inputs(self, messages: Sequence[Message], pictures: Sequence[Image], *, generate: bool = True) -> Any:
        """As :class:`Processor` says."""
        options = dict(self._options)
        if self._template.takes_items:
            filled = _with_pictures(messages, pictures)
        else:
            filled = [{**message, "content": _as_text(message["content"], self._picture)} for message in messages]
            if pictures:
                options["images"] = list(pictures)
        return self.processor.apply_chat_template(
            filled,
            chat_template=self._template.text,
            add_generation_prompt=generate,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=options,
        )


def _tokens(checkpoint: Checkpoint, n_vocab: int) -> dict[str, list[str]]:
    """Tokens that only the files beside tokenizer.json declare, and those that have no embedding."""
    found = checkpoint.directory_tokenizer
    added = found.backend.get_added_tokens_decoder()
    beyond = [added[number].content for number in sorted(added) if number >= n_vocab]
    return {"declared": list(found.declared)} | ({"without_embedding": beyond} if beyond else {})


def _with_pictures(messages: Sequence[Message], pictures: Sequence[Image]) -> list[dict[str, Any]]:
    """Messages with pictures in the places for them."""
    rest = iter(pictures)

    def filled(item: Any) -> Any:
        return {**item, "image": next(rest)} if item.get("type") == "image" else item

    changed = []
    for message in messages:
        content = message["content"]
        changed.append(
            {**message, "content": content if isinstance(content, str) else [filled(item) for item in content]}
        )
    if next(rest, None) is not None:
        raise SettingError("there are more pictures than places for them")
    return changed


def _as_text(content: Any, picture: str) -> str:
    """Content for a template that wants a text: what stands for a picture on a line of its own."""
    if isinstance(content, str):
        return content
    return "\n".join(picture if item["type"] == "image" else item["text"] for item in content)
