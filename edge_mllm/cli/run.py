"""``edge-mllm run``: one prompt, one answer, and what it cost."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_mllm.cli import _options as options
from edge_mllm.cli._costs import cost_line
from edge_mllm.cli._errors import plain_errors

if TYPE_CHECKING:
    from edge_mllm.answer import Answer, Piece

_log = logging.getLogger(__name__)


@plain_errors
def run(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to ask.")],
    *,
    model: options.ModelOption = None,
    image: options.ImagesOption = None,
    engine: options.EngineOption = None,
    as_json: options.JsonOption = False,
    max_new_tokens: options.MaxNewTokensOption = 256,
    temperature: options.TemperatureOption = 0.0,
    top_k: options.TopKOption = 0,
    top_p: options.TopPOption = 1.0,
    min_p: options.MinPOption = 0.0,
    repetition_penalty: options.RepetitionOption = 1.0,
    seed: options.SeedOption = None,
    stop: options.StopOption = None,
    system: options.SystemOption = None,
    threads: options.ThreadsOption = None,
    n_ctx: options.ContextOption = None,
    kv_type: options.KVTypeOption = None,
    detail: options.DetailOption = options.DetailName.auto,
    max_image_tokens: options.MaxImageTokensOption = None,
    max_memory: options.MaxMemoryOption = None,
    max_ttft: options.MaxTtftOption = None,
    image_reduction: options.ReductionOption = None,
    cache_dir: options.CacheDirOption = None,
    low_memory: options.LowMemoryOption = False,
    json_schema: options.JsonSchemaOption = None,
    prompt_lookup: options.PromptLookupOption = 0,
    precision: options.PrecisionOption = None,
    mmproj: options.MmprojOption = None,
    vision_engine: options.VisionEngineOption = options.VisionEngineName.ort,
) -> None:
    """Answer a prompt about pictures, or about none.

    The answer streams to standard output; one line of costs goes to standard error.
    """
    from edge_mllm import SamplingOptions, load

    sampling = SamplingOptions(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty, seed=seed
    )
    schema, limits = options.read_schema(json_schema), options.read_limits(max_memory, max_ttft)
    tuned = _tuned(model, engine, threads, precision)
    chosen: dict[str, Any] = {"engine": engine, "threads": threads, "precision": precision, "mmproj": mmproj, **tuned}
    files: dict[str, Any] = {"vision_engine": vision_engine.value, "cache_dir": cache_dir, "low_memory": low_memory}
    cut: dict[str, Any] = {"detail": detail.value, "max_image_tokens": max_image_tokens, "reduction": image_reduction}
    texts: dict[str, Any] = {"stop": stop or (), "system": system, "json_schema": schema}
    cut |= {"max_memory": limits.max_memory, "max_ttft": limits.max_ttft_s}
    files |= {"n_ctx": n_ctx, "kv_type": options.kv_type_of(kv_type), "max_memory": limits.max_memory}
    with load(model, **chosen, **files) as loaded:
        pieces = loaded.stream(
            prompt,
            list(image or ()),
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            **texts,
            **cut,
            prompt_lookup=prompt_lookup,
        )
        _show(pieces, as_json, tuned)


def _tuned(model: Path | None, engine: str | None, threads: int | None, precision: str | None) -> dict[str, Any]:
    """Settings that ``edge-mllm tune`` kept; nothing where there are none or options say otherwise."""
    from edge_mllm.errors import ModelNotFoundError
    from edge_mllm.session import starter_bundle
    from edge_mllm.tune.kept import applicable

    try:
        found = applicable(starter_bundle() if model is None else model, engine, threads, precision)
    except ModelNotFoundError:  # load says it better
        return {}
    if found is None:
        return {}
    chosen = found.options()
    _log.info("settings of edge-mllm tune: %s", chosen)
    return chosen


def _show(pieces: Iterator[Piece], as_json: bool, tuned: dict[str, Any]) -> None:
    if as_json:
        print_json(pieces, {"tuned": tuned} if tuned else {})
    else:
        typer.echo(cost_line(print_stream(pieces)), err=True)


def print_json(pieces: Iterator[Piece], more: dict[str, Any] | None = None) -> None:
    """Print the finished answer as one JSON object, with further fields."""
    from edge_mllm.answer import last_answer

    answer = last_answer(pieces)
    sys.stdout.write(json.dumps(answer.to_dict() | (more or {}), ensure_ascii=False, indent=2) + "\n")
    sys.stdout.flush()


def print_stream(pieces: Iterator[Piece]) -> Answer:
    """Print text as it comes; end with a line end."""
    answer = None
    for piece in pieces:
        sys.stdout.write(piece.text)
        sys.stdout.flush()
        answer = piece.answer
    assert answer is not None  # noqa: S101  (the last piece carries it)
    if not answer.text.endswith("\n"):
        sys.stdout.write("\n")
        sys.stdout.flush()
    return answer
