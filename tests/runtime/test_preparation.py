"""Encoding in the background, and tower and decoder one after the other in memory."""

import threading
import time

import pytest
from image_settings import pixels

import edge_mllm
from edge_mllm.decoders.lazy import LazyDecoder
from edge_mllm.errors import EngineError, ImageError, PartMismatchError, SettingError

QUESTION = "What is the total?"
ENGINES = ["onnx", "gguf"]


@pytest.fixture
def model(loading):
    with loading() as loaded:
        yield loaded


def count_runs(model, monkeypatch, seconds=0.0):
    """How many tiles the tower has been run on, each taking at least so long."""
    runs = []
    genuine = model._tower._run

    def run(*args, **kwargs):
        runs.append(threading.current_thread().name)
        time.sleep(seconds)
        return genuine(*args, **kwargs)

    monkeypatch.setattr(model._tower, "_run", run)
    return runs


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_prepared_picture_is_not_encoded_again(loading, monkeypatch, cache_bytes):
    with loading() as plain:
        expected = plain.generate(QUESTION, [pixels(0)], max_new_tokens=6).text
    with loading(cache_bytes=cache_bytes) as model:
        runs = count_runs(model, monkeypatch)
        model.prepare(pixels(0)).wait()
        assert len(runs) == 13
        answer = model.generate(QUESTION, [pixels(0)], max_new_tokens=6)
        assert len(runs) == 13
        assert set(runs) == {"edge-mllm-prepare"}
        assert (answer.text, answer.images[0].source) == (expected, "prepared")
        assert answer.timings.vision_s == 0


def test_answer_waits_for_work_under_way(model, monkeypatch):
    runs = count_runs(model, monkeypatch, 0.02)
    preparation = model.prepare(pixels(1), pixels(2))
    while not runs:
        time.sleep(0.001)
    answer = model.generate(QUESTION, [pixels(1), pixels(2)], max_new_tokens=3)
    assert len(runs) == 26
    assert answer.timings.vision_s > 0
    preparation.wait()
    assert preparation.done
    assert len(runs) == 26


def test_chat_and_stream_take_it_up(model, monkeypatch):
    runs = count_runs(model, monkeypatch)
    model.prepare(pixels(3), detail="low").wait()
    list(model.stream(QUESTION, [pixels(3)], detail="low", max_new_tokens=2))
    model.prepare(pixels(4)).wait()
    assert model.chat().ask(QUESTION, [pixels(4)]).images[0].source == "prepared"
    assert len(runs) == 14


def test_errors_come_out_where_the_picture_is_used(model, tmp_path):
    preparation = model.prepare(tmp_path / "none.png")
    with pytest.raises(ImageError):
        preparation.wait()
    with pytest.raises(ImageError):
        model.generate(QUESTION, [tmp_path / "none.png"])
    with pytest.raises(SettingError):
        model.prepare(pixels(0), detail="huge")
    assert model.generate("Hi", max_new_tokens=2).text


def test_failing_tower_is_an_error_of_the_answer(model, monkeypatch):
    def fails(*args):
        raise EngineError("the vision tower failed (test)")

    monkeypatch.setattr(model._tower, "_run", fails)
    preparation = model.prepare(pixels(5))
    with pytest.raises(EngineError):
        preparation.wait()
    with pytest.raises(EngineError, match="test"):
        model.generate(QUESTION, [pixels(5)])
    monkeypatch.undo()
    assert model.generate(QUESTION, [pixels(5)], max_new_tokens=2).images[0].source == "tower"


def test_close_stops_the_work_and_waits(loading, monkeypatch):
    model = loading()
    runs = count_runs(model, monkeypatch, 0.05)
    preparations = [model.prepare(pixels(seed)) for seed in range(4)]
    while not runs:
        time.sleep(0.001)
    before = len(runs)
    model.close()
    assert all(each.done for each in preparations)
    assert len(runs) <= before + 8 < 4 * 13  # each thread may end the tile it is at, and one it was about to begin
    assert not [each for each in threading.enumerate() if each.name == "edge-mllm-prepare"]


def test_what_is_never_picked_up_is_bounded(model):
    for seed in range(12):
        model.prepare(pixels(seed), detail="low").wait()
    assert len(model._encoder._prepared) == 8


def test_low_memory_gives_the_same_answers(loading, monkeypatch):
    with loading() as plain, loading(low_memory=True) as model:
        assert isinstance(model.decoder, LazyDecoder)
        release = model._encoder.release
        decoder_there = []

        def watched():
            decoder_there.append(model.decoder.opened)
            release()

        monkeypatch.setattr(model._encoder, "release", watched)
        for images in ([pixels(0)], [], [pixels(0), pixels(1)]):
            assert (
                model.generate(QUESTION, images, max_new_tokens=8).text
                == plain.generate(QUESTION, images, max_new_tokens=8).text
            )
            assert not model._tower.loaded
        assert decoder_there == [False, True, True]
        assert model.generate("x", max_new_tokens=2).timings.load_s > 0


def test_low_memory_text_alone_never_loads_the_tower(loading, monkeypatch):
    with loading(low_memory=True) as model:
        monkeypatch.setattr(model._tower, "load", lambda: pytest.fail("the tower was loaded"))
        assert model.generate("Hi", max_new_tokens=3).text
        assert model.decoder.n_past > 0


def test_low_memory_finds_a_wrong_pair_with_the_first_answer(tiny_bundle, monkeypatch):
    from edge_mllm.decoders.ort import decoder as ort

    with edge_mllm.load(tiny_bundle, engine="onnx", threads=1, check_hashes=False, low_memory=True) as model:

        def wrong(*args, **kwargs):
            raise PartMismatchError(tiny_bundle, "test")

        monkeypatch.setattr(ort, "OrtDecoder", wrong)
        with pytest.raises(PartMismatchError, match="test"):
            model.generate("Hi")
        model.close()
