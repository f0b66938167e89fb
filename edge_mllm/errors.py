"""Every error a user can cause, each with its own message.

The command line prints ``str(error)`` as one plain line and exits 1; a program can catch
:class:`EdgeMLLMError` or the builtin parent of the concrete class.
"""

from __future__ import annotations

import re
from pathlib import Path

_LONGEST = 1500
_BREAKS = re.compile(r"\s*[^\S ]\s*")
"""White space with a line break or a tab in it; blanks alone stay, for a text that is told about may differ by them."""


class EdgeMLLMError(Exception):
    """Base of all errors of this project; its text says what was wrong and what to do, in one line that can be shown.

    What libraries, files and names brought along is made so: no line breaks, no control characters, no end of pages.
    """

    def __str__(self) -> str:
        line = _BREAKS.sub(" ", self._text()).strip()
        shown = "".join(each if each.isprintable() else "?" for each in line)
        return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."

    def _text(self) -> str:
        return super().__str__()


class ExtraMissingError(EdgeMLLMError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, module: str) -> None:
        super().__init__(f"{module} is not installed; type: pip install 'edge-mllm[{extra}]'")
        self.extra = extra


class ModelNotFoundError(EdgeMLLMError, FileNotFoundError):
    """The path given as MODEL does not exist or holds no model."""

    def __init__(self, path: str | Path, reason: str = "no such file or directory") -> None:
        super().__init__(f"no model at '{path}': {reason}")

    def _text(self) -> str:
        return str(self.args[0])


class CheckpointOnlyError(ModelNotFoundError):
    """A repository of the hub holds a checkpoint, which must be exported first."""


class HubError(EdgeMLLMError, OSError):
    """A model cannot be had from the hub."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot get '{name}': {reason}")
        self.name, self.reason = name, reason

    def _text(self) -> str:
        return str(self.args[0])


class BundleError(EdgeMLLMError, ValueError):
    """A bundle is damaged or does not mean anything."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"bad bundle '{path}': {reason}")
        self.reason = reason


class BundleVersionError(BundleError):
    """The bundle was written with a schema this release does not read."""

    def __init__(self, path: str | Path, found: object, known: int) -> None:
        super().__init__(
            path, f"schema_version is {found!r}, this release reads {known}; export the model again or update edge-mllm"
        )


class PartMissingError(BundleError):
    """A file that bundle.json names is not there."""

    def __init__(self, path: str | Path, file: str) -> None:
        super().__init__(path, f"the file '{file}' is missing; copy the bundle again")


class PartChangedError(BundleError):
    """A file's size or SHA-256 is not what bundle.json says."""

    def __init__(self, path: str | Path, file: str, what: str) -> None:
        super().__init__(path, f"the file '{file}' has changed ({what}); copy the bundle again")


class PartPointerError(BundleError):
    """A file is a Git LFS pointer: the bundle was cloned without its large files."""

    def __init__(self, path: str | Path, file: str) -> None:
        super().__init__(path, f"the file '{file}' is a Git LFS pointer; fetch the file with 'git lfs pull'")


class PartMismatchError(BundleError):
    """Tower, decoder and tokenizer of a bundle do not belong together."""


class ImageError(EdgeMLLMError, ValueError):
    """A picture that cannot be used."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"cannot use picture {source}: {reason}")
        self.reason = reason


class PromptError(EdgeMLLMError, ValueError):
    """A prompt the model cannot take (too long, wrong number of pictures, template refused it)."""


class ContextOverflowError(PromptError):
    """Prompt, pictures and answer do not fit the context.

    Args:
        needed: Tokens of all of it.
        capacity: What the context holds.
        image_tokens: Those that are of pictures; None where that is not known.
    """

    def __init__(self, needed: int, capacity: int, image_tokens: int | None) -> None:
        pictures = "" if image_tokens is None else f" ({image_tokens} of them for pictures)"
        super().__init__(
            f"the prompt needs {needed} tokens{pictures} but the context holds {capacity}; "
            "use `detail='low'`, `max_image_tokens`, fewer pictures or a shorter prompt"
        )
        self.needed, self.capacity = needed, capacity


class EngineError(EdgeMLLMError, RuntimeError):
    """An engine is not in the bundle, or failed."""


class BusyError(EngineError):
    """A model was asked while it makes another answer.

    Args:
        own: The thread that asks has that answer's stream open, so waiting for it would never end.
    """

    def __init__(self, *, own: bool) -> None:
        advice = "read its stream to the end or close it first" if own else "ask again later"
        super().__init__(f"another answer is being made with this model; {advice}, or load the model twice")


class ClosedError(EngineError):
    """A model was used after it was closed."""

    def __init__(self) -> None:
        super().__init__("the model was closed; load it again")


class ForkedError(EngineError):
    """A model was used in another process than the one that loaded it."""

    def __init__(self) -> None:
        super().__init__(
            "the model was loaded before this process was forked, and its threads are not here; load it again"
        )


class SettingError(EdgeMLLMError, ValueError):
    """An option has a value outside its range."""


class SchemaError(EdgeMLLMError, ValueError):
    """A JSON schema that answers cannot be held to."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot use the JSON schema: {reason}")
        self.reason = reason


class ChatFileError(EdgeMLLMError, ValueError):
    """A saved chat cannot be used."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"cannot use the saved chat '{path}': {reason}")
        self.reason = reason


class TaskError(EdgeMLLMError, ValueError):
    """A task file of ``eval`` cannot be read as one."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"cannot read the task '{path}': {reason}")
        self.reason = reason


class RowError(EdgeMLLMError, ValueError):
    """A row of questions has another form."""


class WorkerError(EdgeMLLMError, RuntimeError):
    """A process that answers rows failed."""


class ResultError(EdgeMLLMError, ValueError):
    """A result file of ``eval`` cannot be read, resumed or compared."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"cannot use the result '{path}': {reason}")
        self.reason = reason


class ResultFileError(EdgeMLLMError, ValueError):
    """A file of measurements cannot be read."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"bad result file '{path}': {reason}")
        self.reason = reason


class BenchError(EdgeMLLMError, RuntimeError):
    """A measurement could not be taken."""
