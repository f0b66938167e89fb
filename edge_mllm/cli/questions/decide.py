"""``edge-mllm decide``: how likely given options are as the answer, without decoding one."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_mllm.cli.options.answer import ImagesOption, SystemOption, TilingOptions
from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.options.model import ModelOptions
from edge_mllm.cli.options.output import JsonOptions, QuietOption
from edge_mllm.cli.questions.deciding import DecisionOptions
from edge_mllm.cli.terminal.errors import fail, plain_errors
from edge_mllm.cli.terminal.pictures import STANDARD_INPUT, PicturesCommand, read_pictures

if TYPE_CHECKING:
    from edge_mllm.answer.deciding.decision import Decision
    from edge_mllm.answer.deciding.settings import DecideSettings
    from edge_mllm.batch.deciding import RowDecider
    from edge_mllm.batch.rows import Defaults, Row
    from edge_mllm.session.session import Model

_FILE = "--questions"


class QuestionsCommand(PicturesCommand):
    """A command that needs no word of its own where questions come from a file."""

    many_questions = True

    def wanted_words(self, args: Sequence[str]) -> int:
        """One question, or none."""
        return 0 if any(word.partition("=")[0] == _FILE for word in args) else 1


@plain_errors
@grouped
def decide(
    question: Annotated[
        list[str] | None, typer.Argument(metavar="QUESTION", help="What to ask; several share the pictures.")
    ] = None,
    *,
    loading: ModelOptions,
    image: ImagesOption = None,
    deciding: DecisionOptions,
    tiling: TilingOptions,
    questions: Annotated[
        Path | None,
        typer.Option(
            _FILE,
            metavar="FILE",
            help="JSON Lines with prompt, options and image (or images), - for standard input; JSON Lines come out.",
        ),
    ] = None,
    output: JsonOptions,
    quiet: QuietOption = False,
    system: SystemOption = None,
) -> None:
    """Decide between given answers: the probability of each, from the model's own log-probabilities.

    Nothing is decoded. Questions about one picture share its encoding and its part of the decoder's cache.
    """
    from edge_mllm.batch.rows import Defaults, Row

    asked = list(question or ())
    _check(asked, questions, output)
    settings, pictures = deciding.settings(tiling.budget()), tuple(map(_stored, read_pictures(image or ())))
    defaults = Defaults(system=system, options=deciding.typed(), pictures=pictures)
    if questions is None:
        rows = [defaults.fill(Row(number=n, prompt=text)) for n, text in enumerate(asked, 1)]
        _check_options(rows)
        with loading.load(None, **loading.tuned()) as loaded:
            decisions = _decided(loaded, rows, settings)
        _tell(decisions, output)
    else:
        defaults = Defaults(**(vars(defaults) | {"prompt": asked[0] if asked else None}))
        with _opened(questions) as lines, loading.load(None, **loading.tuned()) as loaded:
            decisions = _answer_lines(loaded, lines, defaults, settings)
    if not quiet and decisions:
        typer.echo(_costs(decisions), err=True)


def _check(asked: Sequence[str], questions: Path | None, output: JsonOptions) -> None:
    from edge_mllm.errors import SettingError

    if questions is None:
        if not asked:
            raise SettingError("there is no question; type one, or give a file of them with --questions")
        return
    if len(asked) > 1:
        raise SettingError("with --questions one question may be typed, for rows that have none")
    if output.wanted:
        raise SettingError("--questions writes JSON Lines by itself; leave --json and --json-indent out")


def _check_options(rows: Sequence[Row]) -> None:
    """Say before a model is loaded that there is nothing to decide between."""
    from edge_mllm.answer.deciding.settings import checked_options

    for row in rows:
        checked_options(row.options)


def _stored(picture: str | bytes) -> Any:
    from edge_mllm.measure.eval.pictures import FilePicture, HeldPicture

    if isinstance(picture, bytes):
        return HeldPicture(picture, "from standard input")
    return FilePicture(Path(picture))


def _decided(model: Model, rows: Sequence[Row], settings: DecideSettings) -> list[Decision]:
    from edge_mllm.batch.deciding import RowDecider

    decider = RowDecider(model, settings)
    decider.calibrate(rows)
    return [decider.decide(row) for row in rows]


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[tuple[Iterator[bytes], Path]]:
    """Lines of a file or of standard input, and the folder where their relative paths begin."""
    from edge_mllm.errors import TaskError

    if str(file) == STANDARD_INPUT:
        yield iter(sys.stdin.buffer), Path()
        return
    try:
        stream = file.open("rb")
    except OSError as error:
        raise TaskError(file, error.strerror or "it cannot be read") from error
    with stream:
        yield iter(stream), file.parent


def _answer_lines(
    model: Model, opened: tuple[Iterator[bytes], Path], defaults: Defaults, settings: DecideSettings
) -> list[Decision]:
    """Write one line for every row, as soon as it is decided; fail at the end where a row could not be decided."""
    from edge_mllm.batch.deciding import RowDecider
    from edge_mllm.batch.rows import read_lines
    from edge_mllm.errors import EdgeMLLMError

    decider, count = RowDecider(model, settings), 0
    decisions: list[Decision] = []
    for row in _calibrated(decider, map(defaults.fill, read_lines(*opened)), settings):
        count += 1
        try:
            decisions.append(decider.decide(row))
            _write({"id": row.name or str(row.number)} | decisions[-1].to_dict())
        except EdgeMLLMError as error:
            _write({"id": row.name or str(row.number), "error": str(error)})
    if len(decisions) < count or not count:
        fail(f"{count - len(decisions)} of {count} rows could not be decided; their lines say why")
    return decisions


def _calibrated(decider: RowDecider, rows: Iterator[Row], settings: DecideSettings) -> Iterator[Row]:
    """Rows as they come; with calibration those about the same pictures together, asked about empty ones first."""
    if not settings.calibrate:
        yield from rows
        return
    for _, same in itertools.groupby(rows, key=lambda row: row.pictures):
        group = list(same)
        decider.calibrate(group)
        yield from group


def _write(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _tell(decisions: Sequence[Decision], output: JsonOptions) -> None:
    from edge_mllm.cli.terminal.console import wide_console
    from edge_mllm.cli.terminal.tables import show_table

    if output.wanted:
        output.write({"decisions": [each.to_dict() for each in decisions]} | _speed(decisions))
        return
    header = ("option", "probability", "raw", "log-probability", "per token")
    console = wide_console()
    for decision in decisions:
        rows = [
            (
                each.text,
                f"{100 * each.probability:.1f} %",
                f"{100 * each.raw_probability:.1f} %",
                f"{each.logprob:.3f}",
                f"{each.mean_logprob:.3f}",
            )
            for each in decision.options
        ]
        show_table(console, header, rows, right=header[1:], title=decision.question if len(decisions) > 1 else "")


def _speed(decisions: Sequence[Decision]) -> dict[str, float | None]:
    """Seconds of the first decision, and milliseconds of one after it."""
    first, *rest = [each.timings.total_s for each in decisions]
    return {"first_s": first, "ms_a_question_after": 1e3 * sum(rest) / len(rest) if rest else None}


def _costs(decisions: Sequence[Decision]) -> str:
    first, speed = decisions[0], _speed(decisions)
    usage, times = first.usage, first.timings
    counts = f"{usage.prompt_tokens - usage.image_tokens} text + {usage.image_tokens} image tokens"
    runs = sum(each.usage.option_runs for each in decisions)
    stages = f"load {times.load_s:.2f} s, first question {times.total_s:.3f} s"
    if times.calibration_s:
        stages += f" ({times.calibration_s:.3f} s of it calibration)"
    after = speed["ms_a_question_after"]
    rest = "" if after is None else f", then {after:.1f} ms a question"
    return f"{first.engine} | {counts}, {runs} {'run' if runs == 1 else 'runs'} for options | {stages}{rest}"
