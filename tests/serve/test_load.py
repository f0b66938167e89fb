"""Every answer of a busy server is the one that the model gives alone; none is lost or crossed, memory stays flat."""

from __future__ import annotations

import pytest
from serve.load import Load, pictures
from serve.server_process import serving

from edge_mllm import SamplingOptions

QUEUE = 5


class Alone:
    """What the model says to one question at a time."""

    def __init__(self, model):
        self.model, self.pictures, self.known = model, pictures(), {}

    def __call__(self, question):
        number, text, most, seed = question
        key = number, text, seed
        if key not in self.known:
            sampling = None if seed is None else SamplingOptions(temperature=1.0, seed=seed)
            pieces = self.model.stream(text, self.pictures[number], max_new_tokens=40, sampling=sampling)
            self.known[key] = [piece.text for piece in pieces]
        return "".join(self.known[key][:most])


def check(load, model):
    assert not load.wrong, load.wrong[:5]
    assert load.counts["200"] > 20 and load.counts["left"] and load.counts["streams"] and load.counts["503"]
    assert set(load.counts) == {"200", "503", "left", "streams"}
    assert max(load.waiting) <= QUEUE and load.served.get("/health").json()["waiting"] == 0
    alone = Alone(model)
    for question, found in load.answers:
        assert found == alone(question), question
    for question, found in load.beginnings:
        assert alone(question).startswith(found), question
    return len(load.answers)


@pytest.mark.parametrize("seconds", [6, pytest.param(120, marks=pytest.mark.slow)])
def test_eight_clients(model, seconds):
    with serving("--queue", QUEUE, "--threads", 1) as running:
        load = Load(running, seconds)
        load.run()
        assert check(load, model) > seconds
    third = len(load.resident) // 3
    early, late = max(load.resident[third : 2 * third]), max(load.resident[2 * third :])
    assert late - early < 12e6, (early, late)
