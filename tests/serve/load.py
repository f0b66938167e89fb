"""Eight clients that ask one server at once: whole answers, streams, and streams that are left; random pictures."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
from serve.server_process import LABEL, QUESTION, SIGN, Served, asking, events, png

CLIENTS = 8
QUESTIONS = (QUESTION, "What is the price?", "Describe it.", "Which colour is the corner?")
Question = tuple[int, str, int, int | None]
"""Number of the picture, text, most tokens, and the seed of a draw."""


def pictures() -> list[bytes]:
    """Those that are asked about."""
    drawn = [png(seed=seed, width=64 + 61 * seed, height=700 - 47 * seed) for seed in range(12)]
    return [LABEL.read_bytes(), SIGN.read_bytes(), *drawn]


@dataclass
class Load:
    """What came of it."""

    served: Served
    seconds: float
    answers: list[tuple[Question, str]] = field(default_factory=list)
    beginnings: list[tuple[Question, str]] = field(default_factory=list)
    """Of streams that were left."""
    counts: Counter[str] = field(default_factory=Counter)
    waiting: list[int] = field(default_factory=list)
    """Requests in the queue, looked at now and then."""
    resident: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Ask until the time is over."""
        self._pictures = pictures()
        self._end = time.monotonic() + self.seconds
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        while time.monotonic() < self._end:
            self.waiting.append(self.served.get("/health").json()["waiting"])
            self.resident.append(self.served.resident_bytes)
            time.sleep(self.seconds / 60)
        for thread in threads:
            thread.join()

    def _client(self, number: int) -> None:
        draw = random.Random(number)
        with httpx.Client(base_url=self.served.url, timeout=60, trust_env=False) as client:
            while time.monotonic() < self._end:
                seed = draw.choice((None, draw.randrange(3)))
                question = draw.randrange(len(self._pictures)), draw.choice(QUESTIONS), draw.randint(1, 40), seed
                try:
                    self._ask(client, draw, question, f"client {number}")
                except Exception as error:
                    self.wrong.append(f"{question}: {error!r}")

    def _ask(self, client: httpx.Client, draw: random.Random, question: Question, user: str) -> None:
        number, text, most, seed = question
        drawn: dict[str, Any] = {} if seed is None else {"temperature": 1.0, "seed": seed}
        body = asking(text, self._pictures[number], max_tokens=most, user=user, **drawn)
        kind = draw.choice(("whole", "stream", "left"))
        if kind == "whole":
            response = client.post("/v1/chat/completions", json=body)
            if not self._is_refused(response):
                self.answers.append((question, response.json()["choices"][0]["message"]["content"]))
            return
        with client.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as response:
            if self._is_refused(response):
                return
            said, most_read = "", draw.randint(1, 8) if kind == "left" else None
            for count, document in enumerate(events(response), 1):
                said += "".join(choice["delta"].get("content") or "" for choice in document["choices"])
                if count == most_read:
                    self.beginnings.append((question, said))
                    self.counts["left"] += 1
                    return
            self.answers.append((question, said))
            self.counts["streams"] += 1

    def _is_refused(self, response: httpx.Response) -> bool:
        self.counts[str(response.status_code)] += 1
        if response.status_code == 503:
            assert int(response.headers["retry-after"]) >= 1
            time.sleep(0.05)
            return True
        assert response.status_code == 200, response.status_code
        return False
