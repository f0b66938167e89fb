import numpy as np
import pytest

from edge_mllm.answer.decoding.sampling import Sampler, SamplingOptions, candidates
from edge_mllm.errors import SettingError


def logits_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n).astype(np.float32) * 3


def test_default_is_greedy():
    logits = logits_of(1000)
    assert Sampler(SamplingOptions())(logits) == int(np.argmax(logits))


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7},
        {"temperature": 1.3, "top_k": 40},
        {"temperature": 1.0, "top_p": 0.9},
        {"temperature": 1.0, "top_p": 0.3},
        {"temperature": 0.8, "min_p": 0.05},
        {"temperature": 1.2, "top_k": 50, "top_p": 0.8, "min_p": 0.02},
        {"temperature": 30.0, "top_p": 0.99},
        {"temperature": 30.0, "min_p": 0.5},
    ],
)
@pytest.mark.parametrize("size", [50, 5000])
def test_filters_equal_transformers(settings, size):
    import torch
    from transformers.generation.logits_process import (
        LogitsProcessorList,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    logits = logits_of(size, seed=size)
    options = SamplingOptions(**settings)
    steps = LogitsProcessorList([TemperatureLogitsWarper(options.temperature)])
    if options.top_k:
        steps.append(TopKLogitsWarper(options.top_k))
    if options.top_p < 1:
        steps.append(TopPLogitsWarper(options.top_p))
    if options.min_p:
        steps.append(MinPLogitsWarper(options.min_p))
    ids = torch.zeros((1, 1), dtype=torch.long)
    expected = torch.softmax(steps(ids, torch.from_numpy(logits)[None].double()), -1)[0].numpy()

    found = np.zeros(size)
    kept, probabilities = candidates(logits, options)
    found[kept] = probabilities
    assert set(kept.tolist()) == set(np.flatnonzero(expected).tolist())
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_penalty_equals_transformers():
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    logits, prompt = logits_of(300), [3, 7, 7, 200]
    expected = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([prompt]), torch.from_numpy(logits)[None].clone())
    seen = []

    class Spy:
        def __call__(self, logits, generated):
            seen.append(list(generated))
            return logits

    sampler = Sampler(SamplingOptions(repetition_penalty=1.7), prompt=prompt, processors=[Spy()])
    first = sampler(logits)
    assert first == int(expected[0].argmax())
    second = sampler(logits)
    again = RepetitionPenaltyLogitsProcessor(1.7)(
        torch.tensor([[*prompt, first]]), torch.from_numpy(logits)[None].clone()
    )
    assert second == int(again[0].argmax())
    assert seen == [[], [first]]


def test_draws_follow_the_probabilities():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = Sampler(SamplingOptions(temperature=1.0, seed=3))
    counts = np.bincount([sampler(logits) for _ in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(counts, [0.5, 0.3, 0.15, 0.05], atol=0.03)


def test_low_temperature_sharpens():
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    _, cold = candidates(logits, SamplingOptions(temperature=0.25))
    np.testing.assert_allclose(
        sorted(cold, reverse=True), np.array([0.5, 0.3, 0.2]) ** 4 / (0.5**4 + 0.3**4 + 0.2**4), rtol=1e-5
    )


def test_seed_makes_draws_repeatable():
    logits = logits_of(500)
    options = SamplingOptions(temperature=1.5, top_p=0.95, seed=11)
    runs = [[sampler(logits) for _ in range(20)] for sampler in (Sampler(options), Sampler(options))]
    other = Sampler(SamplingOptions(temperature=1.5, top_p=0.95, seed=12))
    assert runs[0] == runs[1]
    assert runs[0] != [other(logits) for _ in range(20)]


def test_masked_tokens_are_never_drawn():
    logits = logits_of(100)
    allowed = [4, 50, 99]

    def mask(logits, generated):
        masked = np.full_like(logits, -np.inf)
        masked[allowed] = logits[allowed]
        return masked

    sampler = Sampler(SamplingOptions(temperature=2.0, seed=0), processors=[mask])
    assert {sampler(logits) for _ in range(200)} == set(allowed)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"min_p": -0.5}, "min_p"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"seed": -1}, "seed"),
    ],
)
def test_values_outside_their_range_are_refused(settings, name):
    with pytest.raises(SettingError, match=name):
        SamplingOptions(**settings)
