"""Errors of the export side; each carries a one-line message that says what was wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from edge_mllm.errors import EdgeMLLMError

_MOST_NAMES = 24


class SourceError(EdgeMLLMError, ValueError):
    """The SOURCE argument leads to no checkpoint that can be exported."""

    def __init__(self, source: str | Path, reason: str) -> None:
        super().__init__(f"cannot export '{source}': {reason}")
        self.source, self.reason = str(source), reason


class QuantisedError(SourceError):
    """The source is quantised already."""


class CheckpointError(EdgeMLLMError, ValueError):
    """A checkpoint is damaged, incomplete or contradicts itself."""

    def __init__(self, file: str | Path, field: str, reason: str) -> None:
        where = f"'{file}', {field}" if field else f"'{file}'"
        super().__init__(f"bad checkpoint: {where}: {reason}")
        self.file, self.field, self.reason = str(file), field, reason


class TensorsError(CheckpointError):
    """Tensors are missing, left over or have the wrong shape; the message names them, the attributes hold them all."""

    def __init__(
        self, file: str | Path, missing: Sequence[str] = (), left_over: Sequence[str] = (), wrong: Sequence[str] = ()
    ) -> None:
        parts = (("missing", missing), ("left over", left_over), ("wrong shape", wrong))
        reason = "; ".join(f"{len(names)} {what}: {_listed(names)}" for what, names in parts if names)
        super().__init__(file, "tensors", reason)
        self.missing, self.left_over, self.wrong = tuple(missing), tuple(left_over), tuple(wrong)


def _listed(names: Sequence[str]) -> str:
    """Names with commas between; where a whole part is gone, the first ones stand for the rest."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


class UnsupportedArchitectureError(EdgeMLLMError, ValueError):
    """No family reads this kind of checkpoint."""

    def __init__(self, found: str, supported: Iterable[str], reason: str | None = None) -> None:
        """Say what was found.

        Args:
            found: The class or model type in the checkpoint.
            supported: All that are known.
            reason: Why not, and what is nearest; None names the known one with the most similar name.
        """
        names = sorted(supported)
        nearest = next(iter(difflib.get_close_matches(found, names, n=1)), None)
        if reason is None and nearest is not None:
            reason = f"the nearest is {nearest}"
        why = f": {reason}" if reason else ""
        super().__init__(f"the architecture '{found}' is not supported{why}; supported are: {', '.join(names)}")
        self.found, self.supported, self.nearest = found, tuple(names), nearest


class RecipeError(EdgeMLLMError, ValueError):
    """There is no recipe of this name, or it does not fit the format."""

    def __init__(self, name: str, known: Iterable[str], reason: str = "is unknown") -> None:
        super().__init__(f"the recipe '{name}' {reason}; choose one of: {', '.join(known)}")
        self.name = name


class LossError(EdgeMLLMError, RuntimeError):
    """The exported model departs from its checkpoint by more than allowed."""

    def __init__(self, part: str, measure: str, found: float, floor: float) -> None:
        super().__init__(
            f"verification of {part} failed: {measure} is {found:.6g}, the limit is {floor:.6g}; "
            "choose a recipe with more bits, or set another limit"
        )
        self.part, self.measure, self.found, self.floor = part, measure, found, floor


class InputsError(LossError):
    """The bundle gives its model other pixels or token ids than the checkpoint's own processor; no recipe helps."""

    def __init__(self, part: str, found: str, place: str) -> None:
        """Say what differs.

        Args:
            part: "pixels" or "token ids".
            found: How far they differ, and for which prompt.
            place: The file and the fields that decide it.
        """
        EdgeMLLMError.__init__(
            self, f"verification of {part} failed: {found}; what decides it is {place}: please report these settings"
        )
        self.part, self.place = part, place


class AdapterError(SourceError):
    """An adapter cannot be merged into its base."""


class DecoderBuildError(EdgeMLLMError, RuntimeError):
    """A decoder file could not be made."""


class OutputError(EdgeMLLMError, OSError):
    """The bundle cannot be written where it was asked for."""

    def __str__(self) -> str:
        return str(self.args[0])


class VerificationError(EdgeMLLMError, RuntimeError):
    """The bundle cannot be compared with its checkpoint on this machine."""


def counted(kinds: Mapping[str, int]) -> str:
    """Kinds of operators and how many there are, as ``2 Gather, 1 Softmax``."""
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


class NpuNodesError(EdgeMLLMError, ValueError):
    """A tower has operators that an NPU does not take."""

    def __init__(self, architecture: str, left: Mapping[str, int]) -> None:
        super().__init__(
            f"the tower cannot be written for {architecture}: {counted(left)} would be left to the CPU; "
            "choose another `npu_precision`, or leave `target` out"
        )
        self.left = dict(left)


class NpuFidelityError(EdgeMLLMError, ValueError):
    """What a compiler made of a tower gives other embeddings, by the vendor's own simulator."""

    def __init__(self, target: str, precision: str, found: float, floor: float) -> None:
        advice = "choose another `npu_precision`, or leave `target` out"
        super().__init__(
            f"the tower for {target} in {precision} has a mean cosine of {found:.5f} with the float tower, it must be "
            f"{floor:g} or more; {advice}"
        )
        self.found, self.floor = found, floor


class RknnToolkitError(EdgeMLLMError, RuntimeError):
    """Rockchip's compiler cannot be had."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"rknn-toolkit2 cannot be used: {reason}; name a Python that has it in EDGE_MLLM_RKNN_PYTHON, or leave "
            "`target` out"
        )
