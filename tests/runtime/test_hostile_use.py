"""The same model after an interruption in any stage, and hundreds of pictures in a row."""

import pytest
from image_settings import pixels

import edge_mllm
from edge_mllm import GenerateOptions
from edge_mllm.answer.pictures import bundle_picture as pictures
from edge_mllm.answer.pictures import encoder
from edge_mllm.machine.memory import resident_bytes
from edge_mllm.tower.store import EmbeddingStore

QUESTION = "What is the total?"


STAGES = ["load_image", "cut_tiles", "tower's load", "tower", "cache", "prefill", "step"]


def target(model, stage):
    """The object and the name of what does a stage's work."""
    places = {
        "load_image": (pictures, "load_image"),
        "cut_tiles": (pictures, "cut_tiles"),
        "tower's load": (model._tower, "load"),
        "tower": (model._tower, "_run"),
        "cache": (model._encoder.cache, "put"),
        "prefill": (model.decoder, "prefill"),
        "step": (model.decoder, "step"),
    }
    return places[stage]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("low_memory", [False, True])
def test_model_and_chat_go_on_after_an_interruption(loading, monkeypatch, tmp_path, stage, after, low_memory):
    request = GenerateOptions(max_new_tokens=6, ignore_eos=True)
    with loading() as fresh, loading(low_memory=low_memory, cache_dir=tmp_path) as model:
        chat, other = model.chat(), fresh.chat()
        for each in (chat, other):
            each.ask("Hello", [pixels(1)], **request)
        owner, name = target(model, stage)
        genuine = getattr(owner, name)

        def interrupted(*args, **kwargs):
            if after:
                genuine(*args, **kwargs)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                list(chat.stream(QUESTION, [pixels(2)], **request))
        if stage == "step":  # the token that had come stays in the conversation, and the next turn builds on it
            other._messages, other._pictures = list(chat.messages), list(chat._pictures)
        for picture in ([pixels(2)], []):
            found, expected = (each.ask("And now?", picture, **request) for each in (chat, other))
            assert found.text == expected.text
            assert found.usage.prompt_tokens == expected.usage.prompt_tokens
        assert (
            model.generate(QUESTION, [pixels(3)], max_new_tokens=5).text
            == fresh.generate(QUESTION, [pixels(3)], max_new_tokens=5).text
        )
        assert not list(tmp_path.glob(".vision-*"))
        assert not model._encoder._lock.locked()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "gguf"])
@pytest.mark.parametrize("low_memory", [False, True])
def test_five_hundred_pages_with_the_starter(tmp_path, engine, low_memory):
    """Bounds of both caches hold, and after the first hundred pictures resident memory stays within 24 MB."""
    bound, disk, sizes = 1_000_000, 4_000_000, []
    with edge_mllm.load(engine=engine, cache_bytes=bound, low_memory=low_memory, check_hashes=False) as model:
        cache = model._encoder.cache
        cache._store = EmbeddingStore(tmp_path, max_bytes=disk)
        for seed in range(500):
            answer = model.generate(QUESTION, [pixels(seed, 300, 400 + seed % 200)], max_new_tokens=4)
            assert answer.images[0].source == "tower"
            assert cache.nbytes <= bound
            assert len(model._encoder._prepared) <= encoder._MOST_PREPARED
            sizes.append(resident_bytes() or 0)
        assert max(sizes[400:]) - max(sizes[80:120]) < 24e6, sizes[::50]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= disk
