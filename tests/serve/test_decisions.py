"""``/v1/decisions`` gives what ``Model.decide`` gives."""

from __future__ import annotations

import pytest
from serve.server_process import LABEL, QUESTION, SIGN, asking, error_of

OPTIONS = ["Coffee $4.60", "Tea $4.60", "TRAM 18"]


def decide(served, *pictures, options=OPTIONS, **more):
    return served.post("/v1/decisions", asking(QUESTION, *pictures, options=options, **more))


def test_options_over_a_picture(served, model):
    found, alone = decide(served, LABEL).json(), model.decide(QUESTION, OPTIONS, LABEL)
    assert (found["object"], found["best"], found["calibrated"]) == ("decision", "Coffee $4.60", False)
    assert [option["text"] for option in found["options"]] == OPTIONS
    for told, known in zip(found["options"], alone.options, strict=True):
        assert told["logprob"] == pytest.approx(known.logprob, abs=1e-6)
        assert told["probability"] == pytest.approx(known.probability, abs=1e-6)
    assert sum(option["probability"] for option in found["options"]) == pytest.approx(1)
    assert found["usage"]["prompt_tokens_details"]["image_tokens"] == 180
    assert found["x_edge_mllm"]["images"][0]["tiles"] == 5 and found["x_edge_mllm"]["timings"]["queue_s"] >= 0
    again = decide(served, LABEL).json()
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 180 and again["options"] == found["options"]


def test_settings(served, model):
    assert decide(served, SIGN).json()["best"] == "TRAM 18"
    calibrated = decide(served, SIGN, calibrate=True, whole=False).json()
    assert calibrated["calibrated"] and "empty_logprob" in calibrated["options"][0]
    low = decide(served, LABEL, detail="low").json()
    assert low["x_edge_mllm"]["images"][0]["tiles"] == 1
    assert (
        decide(served, LABEL, image_reduction="uniform:1/2").json()["usage"]["prompt_tokens_details"]["image_tokens"]
        == 90
    )


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"options": ["one"]}, "options"),
        ({"options": ["same", " same"]}, None),
        ({"options": ["one", ""]}, None),
        ({"options": ["one", 2]}, "options[1]"),
        ({"options": ["x"] * 300}, "options"),
        ({"whole": 1}, "whole"),
        ({"temperature": 1}, "temperature"),
        ({"image_reduction": "never"}, "image_reduction"),
    ],
)
def test_refusals(served, more, param):
    assert error_of(decide(served, LABEL, **more), 400)["param"] == param


def test_answers_are_the_same_after_decisions(served, model):
    """Decisions and answers share the decoder's cache."""
    alone = model.generate(QUESTION, LABEL, max_new_tokens=20).text
    for _ in range(2):
        decide(served, LABEL)
        body = asking(QUESTION, LABEL, max_tokens=20)
        assert served.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"] == alone
