"""What the decoder's layers see while the checkpoint looks at pictures and answers: the ground for quantising it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm.arrays import RgbArray
from edge_mllm.errors import SettingError
from edge_mllm_export.calibrate.cache_peaks import CachePeaks
from edge_mllm_export.reference.probes import Probe
from edge_mllm_quant.weights.activations import Moments, gathering

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint
    from edge_mllm_export.families.family import Family
    from edge_mllm_export.families.task import Task
    from edge_mllm_export.reference.reference import Reference

LOGGER = logging.getLogger(__name__)
SHIPPED = Path(__file__).with_name("calibration_pages")
"""Pages of the starter's generator, in its training fonts; no page that it is evaluated on."""
MEASURING = Path(__file__).with_name("measuring_pages")
"""More such pages, all questions about each: what losses are measured on."""
QUESTIONS = "questions.txt"
DEFAULT_QUESTIONS = ("What does it say?", "Describe this picture.", "What do you see here?")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SECOND_QUESTION = "What does it say?"
"""Asked about measuring pictures of the user's, beside the question they have."""
NEW_TOKENS = 32
"""Longest answer; the checkpoint writes it itself, so no answers need to be given."""
MOST_POSITIONS = 6144
"""Positions of prompts and answers after which no further picture is asked about."""
PRODUCTS_BELOW = 9000
"""Input columns from which a layer's products would take more memory than its weights are worth (324 MB each)."""


class CalibrationError(SettingError):
    """A directory of calibration pictures that cannot be used."""

    def __init__(self, directory: Path, reason: str) -> None:
        super().__init__(f"cannot calibrate with '{directory}': {reason}")


@dataclass(frozen=True)
class Calibration:
    """What was measured, and with what."""

    moments: Mapping[str, Moments]
    """Layer name in a plain causal LM (``model.layers.0.mlp.up_proj``, ``lm_head``) -> second moments of its input."""
    pictures: str
    """Name of the directory, or "shipped"."""
    seconds: float
    """What measuring took."""
    cache: CachePeaks
    """How far keys and values go."""

    @property
    def summary(self) -> dict[str, Any]:
        """For the ``recipe`` section of bundle.json."""
        positions = max(moments.rows for moments in self.moments.values())
        return {"pictures": self.pictures, "positions": positions, "seconds": round(self.seconds, 1)}


def calibrate(
    checkpoint: Checkpoint, family: Family, task: Task, directory: Path | None, *, work: Path, hold_back: bool = False
) -> Calibration:
    """Load the checkpoint, let it answer about the calibration pictures, and forget it again.

    The matrices of second moments lie in the scratch directory and are read one at a time.

    Args:
        checkpoint: To measure.
        family: Reads it.
        task: Makes the reference.
        directory: The user's pictures, or None.
        work: The scratch directory.
        hold_back: Leave the pictures alone that a sweep measures with.
    """
    from edge_mllm_export.reference.reference import Reference

    start = time.perf_counter()
    probes = split_probes(directory).calibrate if hold_back else read_calibration(directory)
    place = work / "moments"
    place.mkdir()
    reference, peaks = Reference(checkpoint, family, task), CachePeaks()
    moments = gather_moments(reference, probes, directory=place, after_each=lambda: peaks.take(reference.cache))
    pictures = "shipped" if directory is None else directory.name
    return Calibration(moments, pictures, time.perf_counter() - start, peaks)


def read_calibration(directory: Path | None = None) -> tuple[Probe, ...]:
    """Read pictures and questions.

    Args:
        directory: Pictures, and optionally ``questions.txt``: a line is a question, or the name of a picture, a tab and
            a question about it. Questions without a name go round over the pictures. None: the set that ships.

    Raises:
        CalibrationError: There is no directory, no picture in it, or a line names a picture that is not there.
        ImageError: A picture cannot be read.
    """
    place = SHIPPED if directory is None else directory
    if not place.is_dir():
        raise CalibrationError(place, "there is no such directory")
    pictures = sorted(path for path in place.iterdir() if path.suffix.lower() in PICTURES)
    if not pictures:
        raise CalibrationError(place, f"it holds no picture ({', '.join(PICTURES)})")
    pairs = _pairs(place, pictures)
    read = {path: (_read_picture(path),) for path in dict.fromkeys(path for path, _ in pairs)}
    return tuple(Probe(question, read[path]) for path, question in pairs)


@dataclass(frozen=True)
class Split:
    """Calibration prompts in two lots."""

    calibrate: tuple[Probe, ...]
    measure: tuple[Probe, ...]


def split_probes(directory: Path | None = None) -> Split:
    """Those to calibrate with and those to measure with.

    Pages that ship are two sets. Of the user's pictures two of three are calibrated with; the third is measured with,
    with a second question each. One or two pictures do for both.
    """
    if directory is None:
        return Split(read_calibration(), read_calibration(MEASURING))
    groups = by_picture(read_calibration(directory))
    held = groups if len(groups) < 3 else groups[2::3]
    kept = groups if len(groups) < 3 else [group for number, group in enumerate(groups) if number % 3 != 2]
    measure = [probe for group in held for probe in (*group, *_second(group))]
    return Split(tuple(probe for group in kept for probe in group), tuple(measure))


def by_picture(probes: Sequence[Probe]) -> list[list[Probe]]:
    """Prompts in groups that share their pictures, in order."""
    groups: dict[int, list[Probe]] = {}
    for probe in probes:
        groups.setdefault(id(probe.pictures), []).append(probe)
    return [*groups.values()]


def _second(group: Sequence[Probe]) -> list[Probe]:
    asked = any(probe.prompt == SECOND_QUESTION for probe in group)
    return [] if asked else [Probe(SECOND_QUESTION, group[0].pictures)]


def _pairs(place: Path, pictures: Sequence[Path]) -> list[tuple[Path, str]]:
    listing = place / QUESTIONS
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else []
    named = [line.split("\t", 1) for line in lines if "\t" in line]
    general = [line.strip() for line in lines if line.strip() and "\t" not in line]
    known = {path.name: path for path in pictures}
    for name, _ in named:
        if name not in known:
            raise CalibrationError(place, f"{QUESTIONS} names '{name}', which is not there")
    pairs = [(known[name], question.strip()) for name, question in named]
    rest = pictures if general or not named else []
    questions = general or DEFAULT_QUESTIONS
    return pairs + [(path, questions[number % len(questions)]) for number, path in enumerate(rest)]


def _read_picture(path: Path) -> RgbArray:
    from edge_mllm.picture.image import load_rgb

    return load_rgb(path)


def gather_moments(
    reference: Reference,
    probes: Sequence[Probe],
    *,
    products: bool = True,
    most: int | None = None,
    directory: Path | None = None,
    after_each: Callable[[], None] = lambda: None,
) -> Mapping[str, Moments]:
    """Let the checkpoint answer and watch the decoder's linear layers, visual tokens included.

    Args:
        reference: The checkpoint in float32.
        probes: Pictures and questions, in the order they are asked.
        products: Whether the whole matrix of second moments is wanted, or the diagonal only.
        most: Positions after which no further probe is asked; None: :data:`MOST_POSITIONS`.
        directory: Where the matrices lie; None keeps them in memory.
        after_each: Called after every answer.

    Returns:
        Layer name in a plain causal LM (``model.layers.0.mlp.up_proj``, ``lm_head``) -> second moments.
    """
    positions, most = 0, MOST_POSITIONS if most is None else most
    limit = PRODUCTS_BELOW if products else 0
    with gathering(reference.decoder_and_head(), products_below=limit, directory=directory) as gatherer:
        for number, probe in enumerate(probes):
            answer = reference.answer(probe, new_tokens=NEW_TOKENS)
            after_each()
            positions += len(answer.inputs.ids) + len(answer.tokens)
            if positions >= most:
                LOGGER.info("calibrated with %d of %d prompts, %d positions", number + 1, len(probes), positions)
                break
        return gatherer.moments()
