"""A process that holds one model and measures it when told to: ``python -m edge_mllm.measure.bench.worker``.

It is a process of its own so that its memory is the model's. One JSON object a line comes in on standard input and one
goes out on standard output; whatever libraries print goes to standard error.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO

from edge_mllm.errors import EdgeMLLMError
from edge_mllm.machine.memory import peak_rss_bytes
from edge_mllm.machine.sensors.energy import find_meters
from edge_mllm.measure.bench.answer import measure_answer
from edge_mllm.measure.bench.memory import resident
from edge_mllm.measure.bench.result import Case
from edge_mllm.session.load import load
from edge_mllm.session.session import Model
from edge_mllm.typed_json import read_typed


class Worker:
    """Answers commands; see the methods that start with ``do_``."""

    def __init__(self) -> None:
        self._model: Model | None = None
        self._case: Case | None = None
        self._meters = find_meters()

    def handle(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command; errors become a message."""
        try:
            action = {"load": self.do_load, "answer": self.do_answer, "memory": self.do_memory}[command["do"]]
            return action(command)
        except EdgeMLLMError as error:
            return {"error": str(error)}

    def do_load(self, command: dict[str, Any]) -> dict[str, Any]:
        """Open the model of ``case``, tower included, so that loading is no part of the first answer."""
        self._case = read_typed(Case, command["case"])
        before = resident()
        start = time.perf_counter()
        self._model = load(
            self._case.model,
            engine=self._case.engine,
            threads=self._case.threads,
            mmproj=self._case.mmproj,
            prompt_weights=self._case.prompt_weights,
        )
        self._model.load_tower()
        seconds = time.perf_counter() - start
        return {
            "seconds": seconds,
            "engine": self._model.engine,
            "threads": self._model.threads,
            "devices": {name: dataclasses.asdict(each) for name, each in self._model.pipeline.parts.devices.items()},
            "before": dataclasses.asdict(before),
            "loaded": dataclasses.asdict(resident()),
        }

    def do_answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Answer question ``number``; ``second`` asks another one about the same pictures."""
        if self._model is None or self._case is None:
            raise ValueError("no model is loaded")
        meters = self._meters.usable
        measured = measure_answer(
            self._model, self._case, command["number"], meters=meters, second=command.get("second", False)
        )
        return dataclasses.asdict(measured) | {"refused": self._meters.refused}

    def do_memory(self, command: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - all commands look alike
        """Tell the present and the peak resident memory."""
        return {"steady": dataclasses.asdict(resident()), "peak": peak_rss_bytes()}


def serve(lines: Iterable[str], out: TextIO) -> None:
    """Answer one line with one line until there are no more."""
    worker = Worker()
    out.write(json.dumps({"ready": True}) + "\n")
    out.flush()
    for line in lines:
        out.write(json.dumps(worker.handle(json.loads(line))) + "\n")
        out.flush()


def main() -> None:
    """Serve standard input, keeping standard output clean of what native libraries print."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, out)


if __name__ == "__main__":
    main()
