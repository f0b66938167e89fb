"""Ask a model every question of a task, once; an interrupted run goes on where it stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from edge_mllm.errors import ImageError, PromptError
from edge_mllm.measure.eval.pictures import open_picture
from edge_mllm.measure.eval.records import RESULTS, Header, Record, Results, open_results, write_record
from edge_mllm.measure.eval.scoring.scoring import LOGPROB, prompt_of, score_logprobs, score_reply, scorer_of

if TYPE_CHECKING:
    from pathlib import Path

    from edge_mllm.measure.eval.answerer import Answerer
    from edge_mllm.measure.eval.tasks import Question, Task

log = logging.getLogger(__name__)

Progress = Callable[[int, int, float], None]
"""Called after every question with (done, all, mean score so far)."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run can be told."""

    scorer: str | None = None
    """One of :data:`edge_mllm.measure.eval.scoring.scoring.NAMES`; None: what the task's rows ask for."""
    max_new_tokens: int = 64
    suffix: str = ""
    """A line added to every prompt, for example ``Answer with one word.``"""
    limit: int | None = None
    seed: int = 0


def run_task(
    task: Task, answerer: Answerer, settings: RunSettings, directory: Path, progress: Progress | None = None
) -> Results:
    """Answer and score every question, appending to ``directory/results.jsonl``.

    A broken row is recorded with its reason and does not count. A question the model cannot take (too long for its
    context) counts as wrong. Any other error of the model ends the run, which can then be resumed.

    Raises:
        ResultError: ``directory`` holds a run of something else.
        SettingError: The scorer does not fit the task.
    """
    task = task.sample(settings.limit, settings.seed)
    scorers = {q.index: scorer_of(q, task.scorer, settings.scorer) for q in task.questions}
    header = _header(task, answerer, settings)
    file, before = open_results(directory / RESULTS, header)
    records = list(before)
    done = {record.index for record in records}
    with file:
        for row in task.broken:
            if row.index not in done:
                records.append(Record(index=row.index, error=row.reason))
                write_record(file, records[-1])
                log.warning("row %s %s", row.index, row.reason)
        for question in task.questions:
            if question.index in done:
                continue
            records.append(_ask(question, scorers[question.index], answerer, settings))
            write_record(file, records[-1])
            if progress is not None:
                progress(len(records), header.questions + len(task.broken), mean_score(records))
    return Results(header, tuple(records))


def mean_score(records: list[Record]) -> float:
    """Mean score of the records that count; 0 when none does."""
    scores = [record.score for record in records if record.score is not None]
    return sum(scores) / len(scores) if scores else 0.0


def _header(task: Task, answerer: Answerer, settings: RunSettings) -> Header:
    return Header(
        task=task.name,
        task_sha256=task.sha256,
        layout=task.layout,
        questions=len(task.questions),
        model=answerer.name,
        model_sha256=answerer.sha256,
        engine=answerer.engine,
        scorer=settings.scorer or "auto",
        max_new_tokens=settings.max_new_tokens,
        suffix=settings.suffix,
        limit=settings.limit,
        seed=settings.seed,
    )


def _ask(question: Question, scorer: str, answerer: Answerer, settings: RunSettings) -> Record:
    record = Record(
        index=question.index,
        scorer=scorer,
        category=question.category,
        l2_category=question.l2_category,
        group=question.group,
        answers=question.answers,
    )
    try:
        pictures = [open_picture(picture) for picture in question.pictures]
    except ImageError as error:
        log.warning("row %s: %s", question.index, error)
        return replace(record, error=str(error))
    prompt = prompt_of(question, scorer, settings.suffix)
    try:
        if scorer == LOGPROB:
            logprobs = answerer.option_logprobs(prompt, pictures, question.options)
            scored = score_logprobs(logprobs, question)
            return replace(record, prediction=scored.prediction, score=scored.score, logprobs=tuple(logprobs))
        reply = answerer.answer(prompt, pictures, settings.max_new_tokens)
    except (PromptError, ImageError) as error:
        log.warning("question %s counts as wrong: %s", question.index, error)
        return replace(record, error=str(error), score=0.0)
    scored = score_reply(reply.text, question, scorer)
    return replace(
        record,
        reply=reply.text,
        prediction=scored.prediction,
        score=scored.score,
        timings=dict(reply.timings),
        usage=dict(reply.usage),
        mentions={} if scored.mentions is None else asdict(scored.mentions),
    )
