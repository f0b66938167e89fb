"""Exports of tiny checkpoints without what costs them most: a traced tower is shared, the builder's process is a fork.

Nearly all of a tiny export's time is torch's tracing of its tower and the imports of onnxruntime-genai's builder. What
both make is the same. Exports by ``edge-mllm export`` do without, and so do tests inside :func:`as_users_do`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from fork_server import ForkServer
from shared_traces import SharedTraces

from edge_mllm_export.write.onnx import decoder
from edge_mllm_export.write.vision import tower

BUILDER = (
    "onnxruntime_genai.models.builder",
    "transformers.conversion_mapping",
    "transformers.generation",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
)
"""What the builder's process imports."""
_trace_tower = tower.trace_tower


class BuilderForks:
    """Stands for the module ``subprocess`` in what writes ONNX decoders."""

    def __init__(self) -> None:
        self._server: ForkServer | None = None

    def run(
        self, command: Sequence[str], *, env: Mapping[str, str], capture_output: bool, text: bool, check: bool
    ) -> subprocess.CompletedProcess[str]:
        """Run the builder's script in a fork."""
        assert list(command[:3]) == [sys.executable, "-P", str(decoder.WORKER)]
        assert (capture_output, text, check) == (True, True, False)
        if self._server is None:
            self._server = ForkServer(BUILDER, env)
        done = self._server.run(decoder.WORKER, command[3:], env=env)
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.close()


@contextmanager
def quick_exports(traces: Path) -> Iterator[None]:
    """Exports of this process, with a folder of traces that others may use too."""
    forks = BuilderForks()
    shared = SharedTraces(traces, _trace_tower)
    with patch.object(decoder, "subprocess", forks), patch.object(tower, "trace_tower", shared.trace):
        yield
    forks.close()


@contextmanager
def as_users_do() -> Iterator[None]:
    """Exports of this process as outside of the tests."""
    with patch.object(decoder, "subprocess", subprocess), patch.object(tower, "trace_tower", _trace_tower):
        yield
