"""What was counted since the start, in Prometheus' text form (version 0.0.4)."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from edge_mllm.answer.answer import Answer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


@dataclass
class Histogram:
    """Seconds, counted in buckets."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_SECONDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(_SECONDS, seconds)] += 1
        self.total += seconds

    def lines(self, name: str) -> Iterator[str]:
        """As Prometheus reads it: each bucket counts those before it too."""
        seen = 0
        for edge, count in zip((*map(str, _SECONDS), "+Inf"), self.counts, strict=True):
            seen += count
            yield f'{name}_bucket{{le="{edge}"}} {seen}'
        yield f"{name}_sum {self.total:.6f}"
        yield f"{name}_count {seen}"


class Metrics:
    """Counters of one server; they may be added to from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._tokens: Counter[str] = Counter()
        self._pictures: Counter[str] = Counter()
        self._times = {name: Histogram() for name in ("queue", "ttft", "answer")}

    def answered(self, route: str, status: int) -> None:
        """A request was answered with a status."""
        with self._lock:
            self._requests[route, status] += 1

    def finished(self, answer: Answer, queue_s: float) -> None:
        """An answer was made."""
        usage, timings = answer.usage, answer.timings
        with self._lock:
            self._tokens["prompt"] += usage.prompt_tokens
            self._tokens["cached"] += usage.reused_tokens
            self._tokens["image"] += usage.image_tokens
            self._tokens["completion"] += usage.completion_tokens
            self._pictures.update(image.source for image in answer.images)
            self._times["queue"].add(queue_s)
            self._times["ttft"].add(timings.ttft_s)
            self._times["answer"].add(timings.ttft_s + timings.decode_s)

    def text(self, gauges: dict[str, float]) -> str:
        """All of it.

        Args:
            gauges: What is so now.
        """
        with self._lock:
            return "\n".join(self._lines(gauges)) + "\n"

    def _lines(self, gauges: dict[str, float]) -> Iterator[str]:
        yield "# TYPE edge_mllm_requests_total counter"
        for (route, status), count in sorted(self._requests.items()):
            yield f'edge_mllm_requests_total{{route="{route}",status="{status}"}} {count}'
        yield "# TYPE edge_mllm_tokens_total counter"
        for kind, count in sorted(self._tokens.items()):
            yield f'edge_mllm_tokens_total{{kind="{kind}"}} {count}'
        yield "# TYPE edge_mllm_pictures_total counter"
        for source, count in sorted(self._pictures.items()):
            yield f'edge_mllm_pictures_total{{source="{source}"}} {count}'
        for name, histogram in self._times.items():
            yield f"# TYPE edge_mllm_{name}_seconds histogram"
            yield from histogram.lines(f"edge_mllm_{name}_seconds")
        for name, value in gauges.items():
            yield f"# TYPE edge_mllm_{name} gauge"
            yield f"edge_mllm_{name} {value!r}"
