"""One line that says what an answer cost."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_mllm.answer.answer import Answer


def cost_line(answer: Answer) -> str:
    """Tokens, tiles, milliseconds of every stage, tokens per second and peak memory."""
    usage, times = answer.usage, answer.timings
    counts = _counts(answer)
    stages = {"load": times.load_s, "first token": times.ttft_s, "prefill": times.prefill_s, "decode": times.decode_s}
    if answer.images:
        stages = {
            "load": times.load_s,
            "first token": times.ttft_s,
            "tiling": times.preprocess_s,
            "vision": times.vision_s,
            "prefill": times.prefill_s,
            "decode": times.decode_s,
        }
    if times.probe_s:
        stages["probe"] = times.probe_s
    if times.grammar_s:
        stages["grammar"] = times.grammar_s
    vision = answer.devices.get("vision")
    places = {} if vision is None or vision.device == answer.devices["decode"].device else {"vision": vision.device}
    spent = ", ".join(
        f"{name} {_milliseconds(seconds)}{f' on {places[name]}' if name in places else ''}"
        for name, seconds in stages.items()
    )
    speeds = f"prefill {times.prefill_tps:.0f} tok/s, decode {times.decode_tps:.1f} tok/s"
    parts = [answer.engine, f"{counts}, {usage.completion_tokens} new", spent, speeds]
    if answer.peak_rss_bytes is not None:
        own = answer.peak_anonymous_bytes
        large = "" if answer.large_page_bytes is None else f", {answer.large_page_bytes / 1e6:.0f} in large pages"
        apart = "" if own is None else f" ({own / 1e6:.0f} anonymous{large})"
        parts.append(f"peak {answer.peak_rss_bytes / 1e6:.0f} MB{apart}")
    return " | ".join(parts)


def turn_line(answer: Answer) -> str:
    """The same in short, for a turn of a conversation; on a narrow terminal without the prompt's tokens."""
    usage, times = answer.usage, answer.timings
    told = f"first token {_milliseconds(times.ttft_s)} | {usage.completion_tokens} new, {times.decode_tps:.0f} tok/s"
    line = f"{_counts(answer)} | {told}"
    return told if len(line) > shutil.get_terminal_size().columns else line


def _counts(answer: Answer) -> str:
    """Tokens of the prompt, where they came from, and how many were still in the cache."""
    usage = answer.usage
    text_tokens = usage.prompt_tokens - usage.image_tokens
    counts = f"{text_tokens} text"
    if answer.images:
        tiles = sum(image.tiles for image in answer.images)
        limits = sorted({str(image.reduced_by) for image in answer.images if image.reduced_by is not None})
        coarser = f", coarser for {' and '.join(limits)}" if limits else ""
        counts += f" + {usage.image_tokens} image tokens ({tiles} {'tile' if tiles == 1 else 'tiles'}{coarser})"
        if answer.reduction is not None:
            counts += f" of {answer.reduction.tokens_before} by {answer.reduction.asked}"
    else:
        counts += " tokens"
    if usage.reused_tokens:
        counts += f", {usage.reused_tokens} reused"
    return counts


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.1f} ms"
