"""A check ends work between its steps, and what was worked on stays right."""

from __future__ import annotations

import threading

import pytest

import edge_mllm
from edge_mllm.interruption import between_steps, interruptible

LONG = "Tell me about " + "one thing and another " * 20


class Enough(Exception):  # noqa: N818  (not a failure)
    pass


class Counter:
    """Lets so many steps pass."""

    def __init__(self, most):
        self.left = most

    def __call__(self):
        if not self.left:
            raise Enough
        self.left -= 1


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_a_prompt_ends_between_two_runs(engine):
    with edge_mllm.load(engine=engine, threads=1, chunk=32) as model:
        expected = model.generate(LONG, max_new_tokens=6)
        model.generate("Something else", max_new_tokens=1)
        for steps in (0, 1, 3):
            with interruptible(Counter(steps)), pytest.raises(Enough):
                model.generate(LONG, max_new_tokens=6)
            assert model.decoder.n_past <= 32 * steps + 1 < expected.usage.prompt_tokens
        with interruptible(Counter(1000)):
            again = model.generate(LONG, max_new_tokens=6)
        assert again.text == expected.text


def test_a_check_is_of_its_thread_and_block():
    calls = []
    with interruptible(lambda: calls.append("outer")):
        with interruptible(lambda: calls.append("inner")):
            between_steps()
            other = threading.Thread(target=between_steps)
            other.start()
            other.join()
        between_steps()
    between_steps()
    assert calls == ["inner", "outer"]
