"""What an answer takes is known before, and is what it then takes."""

import pytest
from image_settings import pixels

from edge_mllm.errors import ContextOverflowError, PromptError

QUESTION = "What is the total?"


@pytest.mark.parametrize("options", [{}, {"detail": "low"}, {"max_image_tokens": 30}, {"system": "Be brief."}])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_counts_are_those_of_the_answer(loading, options, count):
    with loading() as model:
        images = [pixels(seed) for seed in range(count)]
        plan = model.plan(QUESTION, images, **options)
        assert not model._tower.loaded
        assert model.decoder.n_past == 0
        answer = model.generate(QUESTION, images, max_new_tokens=2, **options)
        assert (plan.prompt_tokens, plan.image_tokens) == (answer.usage.prompt_tokens, answer.usage.image_tokens)
        keys = ("width", "height", "tiles", "tokens", "reduced")
        for planned, used in zip(plan.images, answer.images, strict=True):
            assert all(getattr(planned, key) == getattr(used, key) for key in keys)
            assert used.reduced == ("detail" in options or "max_image_tokens" in options)


def test_bytes(loading):
    with loading() as model:
        plan = model.plan(QUESTION, [pixels(0)], max_new_tokens=10)
        text = model.plan(QUESTION, max_new_tokens=10)
        assert plan.file_bytes - text.file_bytes == model.spec.parts["vision"].bytes
        assert plan.cache_bytes == 2 * 2 * 2 * 16 * 4 * (plan.prompt_tokens + 10)  # 2 layers, 2 heads of 16, float32
        assert model.plan(QUESTION, max_new_tokens=10**6).cache_bytes == 512 * model.decoder.n_ctx


def test_seconds_are_measured_ones(loading):
    with loading() as model:
        assert (model.plan(QUESTION, [pixels(0)]).vision_s, model.plan(QUESTION).prefill_s) == (None, None)
        assert model.plan(QUESTION).vision_s == 0
        times = model.generate(QUESTION, [pixels(0)], max_new_tokens=2).timings
        plan = model.plan(QUESTION, [pixels(1)])
        assert plan.vision_s == pytest.approx(times.vision_s)
        assert plan.prefill_s == pytest.approx(times.prefill_s)
        model.generate(QUESTION, [pixels(0)], max_new_tokens=2)
        assert model.plan(QUESTION, [pixels(1)]).vision_s == plan.vision_s


def test_what_does_not_fit(loading):
    with loading(n_ctx=100) as model:
        assert not model.plan(QUESTION, [pixels(0)]).fits
        with pytest.raises(ContextOverflowError):
            model.stream(QUESTION, [pixels(0)])
        assert model.plan(QUESTION, [pixels(0)], detail="low").fits
        with pytest.raises(PromptError):
            model.plan(QUESTION, [pixels(0)], detail="high", max_image_tokens=30)


def test_low_memory_does_not_load_the_decoder_for_it(loading):
    with loading(low_memory=True) as model:
        assert model.plan(QUESTION, [pixels(0)]).cache_bytes is None
        assert not model.decoder.opened
        model.generate(QUESTION, max_new_tokens=1)
        assert model.plan(QUESTION).cache_bytes > 0
