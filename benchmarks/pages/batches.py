"""Tables of docs/batch.md: how workers scale on one machine, and what a million pictures take on a thousand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.pages.tables import table

RESULTS = Path(__file__).resolve().parents[1] / "results"
_PICTURES, _MACHINES, _ANSWER = 1_000_000, 1_000, 64
_WAYS = {
    "edge-mllm onnx, int8 prompt": "onnx, with prompt weights",
    "edge-mllm onnx": "onnx",
    "edge-mllm gguf": "gguf",
}


def scaling() -> str:
    """Processor time and memory of one worker and of two, each with one thread."""
    found = json.loads((RESULTS / "batch.json").read_text())
    rows = [
        [
            engine,
            way,
            f"{figures['processor_s_a_row']:.2f} s",
            f"{figures['resident_bytes'] / 1e6:.0f} MB",
            f"{figures['proportional_bytes'] / 1e6:.0f} MB",
        ]
        for engine, ways in found["engines"].items()
        for way, figures in ways.items()
        if "2 threads" not in way
    ]
    head = ["engine", "workers", "processor time of a row", "resident, summed", "shared pages once"]
    processor = found["machine"]["processor"]
    note = (
        f"SmolVLM-500M's shape with random weights, pictures of 512x512 in low detail, answers of "
        f"{found['answer_tokens']} tokens, an {processor['model']}, {found['date'][:10]}. Other programs kept its "
        f"{processor['usable_cores']} cores busy meanwhile, so rows a second are not told: where every worker has a "
        "core, they are the number of workers divided by the processor time of a row."
    )
    return f"{table(head, rows)}\n\n{note}"


def plan() -> str:
    """Machine-hours of a million pictures, from what one takes."""
    found = json.loads((RESULTS / "peers_smolvlm-500m_no_amx.json").read_text())
    rows = [row for name, title in _WAYS.items() for row in _planned(title, found["peers"][name]["medians"])]
    head = [
        "engine",
        "what is asked",
        "one picture",
        "a million pictures",
        "on a thousand machines",
        "at one cent a machine-hour",
    ]
    note = (
        f"A machine is {found['threads']} cores of an {found['machine']['processor']['model']} without AMX; "
        f"SmolVLM-500M's shape, pictures of {found['picture']} ({found['visual_tokens']} visual tokens), "
        f"measured {found['created'][:10]}."
    )
    return f"{table(head, rows)}\n\n{note}"


def _planned(title: str, medians: dict[str, Any]) -> list[list[str]]:
    answer_s = medians["first_token_s"] + (_ANSWER - 1) / medians["decode_tps"]
    asked = {f"an answer of {_ANSWER} tokens": answer_s, "a decision": medians["first_token_s"]}
    return [[title, what, *_multiplied(seconds)] for what, seconds in asked.items()]


def _multiplied(seconds: float) -> list[str]:
    hours = seconds * _PICTURES / 3600
    return [f"{seconds:.1f} s", f"{hours:,.0f} machine-hours", f"{hours / _MACHINES:.1f} hours", f"${hours / 100:,.0f}"]
