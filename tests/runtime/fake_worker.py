"""Stands in for the measuring process: known times, so that reports can be checked to the digit.

Arguments: NAME=SECONDS of an answer's decode stage per engine, or ``crash`` to end in the middle of an answer.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

SPEEDS = dict(item.split("=") for item in sys.argv[1:] if "=" in item)
LOG = os.environ.get("FAKE_WORKER_LOG")
RESIDENT = {"rss": 300 << 20, "anonymous": 100 << 20, "file": 200 << 20, "swapped": 0}


def say(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


def answer(number: int, second: bool, engine: str) -> dict[str, object]:
    decode = float(SPEEDS.get(engine, "0.5")) * (1 + 0.01 * (number % 3))
    stages = {"image_decode": 0.01, "tiling": 0.02, "vision": 1.2, "prefill": 0.26, "decode": decode}
    sample = {
        "stages": stages,
        "end_to_end": sum(stages.values()) / 0.99,
        "ttft": 1.5,
        "second_ttft": 0.05 if second else None,
        "prefill_tps": 400.0,
        "decode_tps": 63 / decode,
        "reused_tokens": 0,
        "energy": [{"meter": "rapl/package", "scope": "package", "joules": 20.0, "seconds": 2.0, "samples": 2}],
        "celsius": 50.0,
        "throttled": ["1 thermal throttle events"] if number == 2 else [],
    }
    counts = {"tiles": 12, "visual_tokens": 768, "prompt_tokens": 800, "completion_tokens": 64}
    return {"sample": sample, "counts": counts, "refused": ["rapl/dram: readable by root only"]}


def main() -> None:
    if "mute" in sys.argv:
        sys.exit("cannot start: no such library")
    say({"ready": True})
    engine = "?"
    for line in sys.stdin:
        command = json.loads(line)
        if LOG:
            with Path(LOG).open("a") as log:
                log.write(f"{command['do']} {engine} {command.get('number', '')}\n")
        if command["do"] == "load":
            engine = command["case"]["engine"] or "onnx"
            if engine == "bad":
                say({"error": "no engine 'bad' here"})
                continue
            devices = {name: {"provider": "cpu", "device": "CPU"} for name in ("vision", "prefill", "decode")}
            opened = {"seconds": 0.4, "engine": engine, "threads": 2, "before": RESIDENT, "loaded": RESIDENT}
            say(opened | {"devices": devices})
        elif command["do"] == "answer":
            if "crash" in sys.argv:
                print("GGML_ASSERT failed", file=sys.stderr, flush=True)
                os.abort()
            say(answer(command["number"], command["second"], engine))
        else:
            say({"steady": RESIDENT, "peak": 400 << 20})


main()
