"""What HTTP and the queue add to an answer: the same questions to ``Model.generate`` and to a server, in turns.

    python benchmarks/serve_overhead.py          # about a minute on 2 cores

Both are processes with the starter; each question goes to one and then to the other, so that what disturbs the machine
disturbs both. A picture is decoded, and found in the cache, in both. Medians of both and of the differences of pairs,
for each kind of question, go to benchmarks/results/serve_overhead.json. Promised: below 5 ms at the median.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
from rounds import when_and_where

import edge_mllm

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "starter" / "demo" / "label.png"
PROMISED_S = 0.005
KINDS: dict[str, tuple[str, bool, int]] = {
    "text, 1 token": ("Hello.", False, 1),
    "text, 16 tokens": ("Hello.", False, 16),
    "picture, 16 tokens": ("What does it say?", True, 16),
}
"""Question, whether there is a picture, and most tokens."""


def main() -> None:
    """Measure, write; the exit code says whether the promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=200)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "serve_overhead.json")
    given = parser.parse_args()
    command = [sys.executable, "-m", "edge_mllm", "serve", "--port", "0", "--threads", "1"]
    with (
        edge_mllm.load(threads=1) as model,
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as server,
    ):
        try:
            found = re.search(r"http://\S+", server.stderr.readline() if server.stderr else "")
            if found is None:
                raise SystemExit("the server did not start")
            with httpx.Client(base_url=found[0], trust_env=False, timeout=60) as client:
                runs = {kind: _measured(model, client, *asked, given.repeat) for kind, asked in KINDS.items()}
        finally:
            server.terminate()
    result = {
        "schema": "edge-mllm-serve-overhead/1",
        **when_and_where("created"),
        "model": "starter",
        "threads": 1,
        "repeat": given.repeat,
        "promised_s": PROMISED_S,
        "runs": runs,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(runs, indent=1))
    if max(run["overhead_s"]["median"] for run in runs.values()) > PROMISED_S:
        raise SystemExit("not kept")


def _measured(
    model: edge_mllm.Model, client: httpx.Client, text: str, with_picture: bool, tokens: int, repeat: int
) -> dict[str, Any]:
    data = PICTURE.read_bytes()
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    picture = [{"type": "image_url", "image_url": {"url": url}}] if with_picture else []
    body = {"messages": [{"role": "user", "content": [*picture, {"type": "text", "text": text}]}], "max_tokens": tokens}
    images = [data] if with_picture else []

    def alone() -> str:
        return model.generate(text, images, max_new_tokens=tokens).text

    def served() -> str:
        answer = client.post("/v1/chat/completions", json=body)
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["message"]["content"])

    if alone() != served():
        raise SystemExit(f"other answers to '{text}'")
    pairs = [(_timed(alone), _timed(served)) for _ in range(repeat)]
    return {
        "generate_s": _spread([each for each, _ in pairs]),
        "served_s": _spread([each for _, each in pairs]),
        "overhead_s": _spread([served_s - alone_s for alone_s, served_s in pairs]),
    }


def _timed(ask: Callable[[], str]) -> float:
    start = time.perf_counter()
    ask()
    return time.perf_counter() - start


def _spread(seconds: list[float]) -> dict[str, float]:
    tenths = quantiles(seconds, n=10)
    return {"median": round(median(seconds), 6), "p10": round(tenths[0], 6), "p90": round(tenths[-1], 6)}


if __name__ == "__main__":
    main()
