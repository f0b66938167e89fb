"""The processor that a directory's files give to a user of transformers, without its part for videos.

``AutoProcessor`` with Pillow's backend cannot load a class that has a video processor: those need torchvision. Here the
class that the files name is loaded as it is, but for that part, which still pictures never reach.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import VerificationError
from edge_mllm_export.tokenizer.directory import quiet

if TYPE_CHECKING:
    from collections.abc import Iterator

_VIDEO = "video_processor"
_NAMING = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
"""Files that may name the class, in the order in which AutoProcessor asks them."""


def processor_class(directory: Path) -> Any:
    """The class that ``AutoProcessor`` finds for a directory.

    Raises:
        VerificationError: It finds none.
    """
    from transformers import AutoConfig
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, processor_class_from_name

    named = next(filter(None, (_named(directory / file) for file in _NAMING)), None)
    if named is not None:
        found = processor_class_from_name(named)
        if found is None:
            raise VerificationError(f"transformers has no processor called {named}, which {directory} names")
        return found
    try:
        return PROCESSOR_MAPPING[type(AutoConfig.from_pretrained(directory))]
    except (KeyError, ValueError) as error:
        raise VerificationError(f"transformers has no processor for {directory}: {_line(error)}") from error


def _named(file: Path) -> str | None:
    document = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found = document.get("processor_class")
    return found if isinstance(found, str) else None


def load_own_processor(directory: Path, kind: Any, tokenizer: Any, counts: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """Load a directory's processor with Pillow's image backend.

    Args:
        directory: Its files decide everything.
        kind: Its class.
        tokenizer: The directory's own.
        counts: Settings of the processor that only repeat sizes of the model, as the model has them. Where the files
            lack one or say something else, transformers asks its user to set it.

    Returns:
        The processor, and the names of the counts that the model had to give.

    Raises:
        VerificationError: transformers cannot load it.
    """
    taken: list[str] = []
    attributes = kind.get_attributes()

    class Still(kind, _without_videos(attributes)):  # type: ignore[misc]  # transformers is not typed here
        """The same without videos."""

        video_processor = SimpleNamespace(num_frames=None, fps=None, slice_mode=None, downsample_mode=None)

        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in attributes if name != _VIDEO]

        @classmethod
        def get_processor_dict(cls, path: Any, **settings: Any) -> Any:
            found, rest = kind.get_processor_dict(path, **settings)
            taken.extend(name for name, value in counts.items() if found.get(name) != value)
            videos = {_VIDEO: None} if _VIDEO in attributes else {}
            return {**found, **counts, **videos}, rest

        @classmethod
        def _get_arguments_from_pretrained(cls, *given: Any, **settings: Any) -> list[Any]:
            loaded = kind._get_arguments_from_pretrained.__func__(cls, *given, **settings)
            found = dict(zip(cls.get_attributes(), loaded, strict=True))
            return [found.get(name) for name in attributes]  # in the order of the class's arguments

        @classmethod
        def _load_tokenizer_from_pretrained(cls, *_: Any, **__: Any) -> Any:
            return tokenizer

    Still.__name__ = Still.__qualname__ = kind.__name__
    try:
        with quiet(), _no_number_words(kind):
            return Still.from_pretrained(directory, backend="pil"), taken
    except Exception as error:  # whatever its files make of its code
        reason = f"transformers cannot load the processor of '{directory}' ({type(error).__name__}: {_line(error)})"
        raise VerificationError(f"{reason}; mend its files, or leave the comparison out with `verify=False`") from error


def _without_videos(attributes: Sequence[str]) -> Any:
    """A base that takes a processor's parts in the order of ``attributes`` and leaves that for videos out."""
    from transformers import ProcessorMixin

    class Parts(ProcessorMixin):  # type: ignore[misc]  # transformers is not typed here
        """Parts by their names."""

        def __init__(self, *parts: Any, **settings: Any) -> None:
            named = dict(zip(attributes, parts, strict=False)) | settings
            named.pop(_VIDEO, None)
            super().__init__(**named)

    return Parts


@contextmanager
def _no_number_words(kind: Any) -> Iterator[None]:
    """SmolVLM's class wants num2words, with which it writes down how many frames a video has."""
    import sys

    module = sys.modules[kind.__module__]
    missing = getattr(module, "num2words", True) is None
    if missing:
        module.num2words = str  # type: ignore[attr-defined]  # its own optional import
    try:
        yield
    finally:
        if missing:
            module.num2words = None  # type: ignore[attr-defined]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
