"""Decisions between options through the public names: the numbers of an evaluation, cheap later questions."""

from __future__ import annotations

import dataclasses
import math
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edge_mllm
from edge_mllm.errors import ContextOverflowError, ImageError, PromptError, SettingError
from edge_mllm.measure.eval.bundle_answerer import BundleAnswerer

DEMO = Path(__file__).parents[2] / "starter" / "demo"
LABEL, SIGN = DEMO / "label.png", DEMO / "sign.png"
SAYS = "What does it say?"
OPTIONS = ["Coffee $4.60", "TRAM 18", "A sentence that is longer than sixteen tokens are, so that it takes five runs."]


@pytest.fixture(scope="module", params=["onnx", "gguf"])
def model(request):
    with edge_mllm.load(engine=request.param, threads=1) as loaded:
        yield loaded


def test_numbers_are_those_of_an_evaluation(model):
    found = BundleAnswerer(model).option_logprobs(SAYS, [Image.open(LABEL).convert("RGB")], OPTIONS)
    decision = model.decide(SAYS, OPTIONS, LABEL)
    assert [option.mean_logprob for option in decision.options] == found
    assert decision.best.text == OPTIONS[0] and decision.usage.option_runs == 1 + 1 + 5


def test_numbers_are_those_of_decoding(model):
    """Forced through the decoding loop one token at a time, the same answer has the same log-probability."""
    (said, _, _) = model.decide(SAYS, OPTIONS, LABEL).options
    greedy = list(model.stream(SAYS, LABEL))
    tokens, rows = [piece.token for piece in greedy], []

    def note(logits, generated):
        rows.append(logits.astype(np.float64))
        return logits

    model.generate(SAYS, LABEL, processors=[note])
    logprobs = [
        row[token] - row.max() - np.log(np.exp(row - row.max()).sum()) for row, token in zip(rows, tokens, strict=True)
    ]
    assert len(tokens) == said.tokens
    assert said.logprob == pytest.approx(sum(logprobs), abs=0.05)  # 4-bit kernels round by the size of a run


def test_what_an_option_scores_does_not_depend_on_the_others(model):
    whole = {option.text: option.logprob for option in model.decide(SAYS, OPTIONS, LABEL).options}
    for pair in (OPTIONS[:2], OPTIONS[1:], OPTIONS[::-1]):
        found = model.decide(SAYS, pair, LABEL)
        assert all(option.logprob == whole[option.text] for option in found.options)


def test_white_space_around_an_option_is_not_part_of_it(model):
    plain, spaced = model.decide(SAYS, OPTIONS[:2], LABEL), model.decide(SAYS, [f" {o}\n" for o in OPTIONS[:2]], LABEL)
    assert plain.options == spaced.options


def test_ten_questions_compute_the_picture_once(model):
    asked = [(f"Is it number {count}?", ("yes", "no")) for count in range(10)]
    found = list(model.decide_each(asked, SIGN))
    assert [each.question for each in found] == [question for question, _ in asked]
    assert [each.images[0].source for each in found] == ["tower"] + 9 * ["kv"]
    for each in found[1:]:
        assert each.usage.prompt_tokens - each.usage.reused_tokens < 20
        assert each.timings.vision_s == each.timings.preprocess_s == 0
    again = model.decide(*asked[3], SIGN)
    assert again.options == found[3].options and again.usage.reused_tokens == found[3].usage.reused_tokens


def test_decisions_and_answers_do_not_disturb_each_other(model):
    before = model.decide(SAYS, OPTIONS, LABEL)
    text = model.generate(SAYS, LABEL).text
    assert model.decide(SAYS, OPTIONS, LABEL).options == before.options
    assert model.generate(SAYS, LABEL).text == text
    answers = []

    def ask():
        answers.append(model.decide(SAYS, OPTIONS, LABEL).options)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert model.generate(SAYS, LABEL).text == text
    for thread in threads:
        thread.join()
    assert answers == 3 * [before.options]


def test_messages_decide_as_a_prompt_does(model):
    content = [{"type": "image", "image": LABEL}, {"type": "text", "text": SAYS}]
    found = model.decide(options=OPTIONS, messages=[{"role": "user", "content": content}])
    assert found.options == model.decide(SAYS, OPTIONS, LABEL).options
    none = model.decide("Is it late?", ("yes", "no"), system="Be short.")
    assert none.images == () and none.usage.image_tokens == 0


def test_calibration_is_remembered_for_pictures_of_one_size(model):
    other = Image.open(LABEL).convert("RGB").rotate(180)
    first = model.decide(SAYS, OPTIONS, LABEL, calibrate=True)
    second = model.decide(SAYS, OPTIONS, other, calibrate=True)
    assert first.timings.calibration_s > 0 == second.timings.calibration_s
    assert [o.empty_logprob for o in first.options] == [o.empty_logprob for o in second.options]
    grey = Image.new("RGB", (640, 480), (127, 127, 127))
    empty = model.decide(SAYS, OPTIONS, grey, calibrate=True)
    assert all(option.logprob == option.empty_logprob for option in empty.options)
    assert [option.probability for option in empty.options] == pytest.approx(3 * [1 / 3])
    assert sum(option.probability for option in first.options) == pytest.approx(1)


def test_results_are_frozen_and_public(model):
    decision = model.decide("x", ("a", "b"))
    for value in (decision, decision.options[0], decision.usage, decision.timings):
        assert type(value).__name__ in edge_mllm.__all__ and getattr(edge_mllm, type(value).__name__) is type(value)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, dataclasses.fields(value)[0].name, None)
    assert decision.to_dict()["best"] == decision.best.text
    assert math.isclose(sum(option.raw_probability for option in decision.options), 1)


WRONG = {
    "no options": (lambda m: m.decide("x"), SettingError, "needs two options or more, 0 given"),
    "one option": (lambda m: m.decide("x", ["a"]), SettingError, "1 given"),
    "a text": (lambda m: m.decide("x", "yes,no"), SettingError, "options is 'yes,no'; it must be a list of texts"),
    "numbers": (lambda m: m.decide("x", [1, 2]), SettingError, "an option is 1; it must be a text"),
    "blank": (lambda m: m.decide("x", ["a", " "]), SettingError, "an option is empty"),
    "twice": (lambda m: m.decide("x", ["a", "a "]), SettingError, "the option 'a' is given twice"),
    "an end": (lambda m: m.decide("x", ["a", "<end_of_utterance>"]), PromptError, "ends the answer for this model"),
    "beginnings": (lambda m: m.decide("x", ["no", "no one"], whole=False), PromptError, "is the beginning of"),
    "no prompt": (lambda m: m.decide(options=["a", "b"]), PromptError, "nothing to answer"),
    "no picture": (lambda m: m.decide("x", ["a", "b"], "away.png"), ImageError, "no such file"),
    "nothing to calibrate": (lambda m: m.decide("x", ["a", "b"], calibrate=True), SettingError, "leave `calibrate`"),
    "a setting": (lambda m: m.decide("x", ["a", "b"], calibrated=True), SettingError, "did you mean calibrate"),
    "a setting's type": (lambda m: m.decide("x", ["a", "b"], whole="no"), SettingError, "whole is 'no'"),
    "a long option": (lambda m: m.decide("x", ["a", "b " * 3000]), ContextOverflowError, "the context holds"),
    "a long prompt": (lambda m: m.decide("x " * 3000, ["a", "b"]), ContextOverflowError, "the context holds"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_decided_is_refused_in_one_sentence(model, case):
    call, kind, says = WRONG[case]
    with pytest.raises(kind, match=says) as caught:
        call(model)
    assert "\n" not in str(caught.value)
    assert model.decide(SAYS, OPTIONS[:2], LABEL).best.text == OPTIONS[0]


def test_a_model_that_is_busy_or_closed():
    model = edge_mllm.load(when_busy="raise", threads=1)
    stream = model.stream("x")
    next(stream)
    with pytest.raises(edge_mllm.EdgeMLLMError, match="another answer is being made"):
        model.decide("x", ("a", "b"))
    stream.close()
    model.close()
    with pytest.raises(edge_mllm.EdgeMLLMError, match="the model was closed"):
        model.decide("x", ("a", "b"))
