"""Cells kept from turn to turn and from process to process give the same bits as computing them again."""

import hashlib
import json
import resource
import struct

import numpy as np
import pytest
from call_recorder import Recorder
from image_settings import pixels

import edge_mllm
from edge_mllm import GenerateOptions
from edge_mllm.errors import ChatFileError
from edge_mllm.session.chat_file import ChatFile, read_chat_file, write_chat_file

ENGINES = ["onnx", "gguf"]
SHORT = GenerateOptions(max_new_tokens=8, ignore_eos=True)


@pytest.fixture
def model(loading):
    with loading() as loaded:
        yield loaded


def test_tenth_turn_equals_a_cold_run_with_the_same_borders(loading, monkeypatch):
    with loading() as model, loading() as cold:
        chat = model.chat(system="Be brief.")
        recorder = Recorder(model.decoder, monkeypatch)
        for turn in range(10):
            images = [pixels(turn)] if turn in (0, 3, 7) else []
            answer = chat.ask(f"Question {turn}?", images, **SHORT)
            prompt = answer.usage.prompt_tokens
            if turn:
                assert prompt - answer.usage.reused_tokens < 40 + 90 * len(images)
        assert answer.usage.image_tokens == 3 * 52
        for _, name, argument in recorder.calls:
            logits = getattr(cold.decoder, name)(argument)
        assert cold.decoder.n_past == model.decoder.n_past > 500
        assert np.array_equal(logits, recorder.logits[-1])
        one_shot = cold.chat(system="Be brief.")
        one_shot._messages, one_shot._pictures = list(chat.messages), chat._pictures
        cold.decoder.truncate(0)
        cold.pipeline._cells._keys = []
        assert one_shot.ask("Last?", **SHORT).text == chat.ask("Last?", **SHORT).text


def logits_of(model, chat, monkeypatch):
    with monkeypatch.context() as patch:
        recorder = Recorder(model.decoder, patch)
        answer = chat.ask("And then?", **SHORT)
    return answer, np.stack(recorder.logits)


@pytest.mark.parametrize("kv_type", ["f32", None])
def test_restored_chat_goes_on_bit_for_bit(loading, tmp_path, monkeypatch, kv_type):
    path = tmp_path / "chat.bin"
    with loading(kv_type=kv_type) as model:
        chat = model.chat(system="Be brief.")
        chat.ask("What is it?", [pixels(0), pixels(1)], **SHORT)
        chat.ask("Why?", **SHORT)
        chat.save(path)
        expected, bits = logits_of(model, chat, monkeypatch)
    with loading(kv_type=kv_type, low_memory=True) as model:
        restored = model.load_chat(path)
        assert restored.messages == chat.messages[:-2]
        model.decoder.open()
        answer, found = logits_of(model, restored, monkeypatch)
        assert answer.text == expected.text
        assert np.array_equal(found, bits)
        assert answer.usage == expected.usage
        assert answer.timings.vision_s == 0
        assert not model._tower.loaded
        assert [image.source for image in answer.images] == ["kv", "kv"]
        model.generate("Something else", max_new_tokens=2)  # takes the cache away
        later = restored.ask("Once more?", **SHORT)
        assert later.timings.vision_s == 0
        assert later.images[0].source == "memory"


def test_saved_after_another_answer(loading, tmp_path):
    """The chat's cells are gone; what is saved is little, and the answer is right all the same."""
    path = tmp_path / "chat.bin"
    with loading() as model, loading() as other:
        chat = model.chat()
        chat.ask("What is it?", [pixels(0)], **SHORT)
        model.generate("Something else", max_new_tokens=2)
        chat.save(path)
        restored = other.load_chat(path)
        assert restored.ask("Why?", **SHORT).text == chat.ask("Why?", **SHORT).text


def test_empty_chat_and_chat_that_was_never_decoded(model, tmp_path):
    path = tmp_path / "chat.bin"
    model.chat(system="Be kind.").save(path)
    restored = model.load_chat(path)
    assert [message["role"] for message in restored.messages] == ["system"]
    assert restored.ask("Hi", **SHORT).usage.completion_tokens == 8


@pytest.fixture
def saved(model, tmp_path):
    chat = model.chat()
    chat.ask("What is it?", [pixels(0)], **SHORT)
    chat.save(tmp_path / "chat.bin")
    return tmp_path / "chat.bin"


def test_damaged_files_are_refused(model, saved):
    whole = saved.read_bytes()
    draw = np.random.default_rng(0)
    for place in [*range(60), *draw.integers(0, len(whole), 40).tolist()]:
        data = bytearray(whole)
        data[place] ^= 0x21
        saved.write_bytes(data)
        with pytest.raises(ChatFileError, match=r"damaged|not a saved chat"):
            model.load_chat(saved)
    for data in (b"", whole[:20], whole[:-1], whole + b"x", b"x" * 100):
        saved.write_bytes(data)
        with pytest.raises(ChatFileError) as caught:
            model.load_chat(saved)
        assert "\n" not in str(caught.value)
    with pytest.raises(ChatFileError, match="No such file"):
        model.load_chat(saved.parent / "none.bin")
    saved.write_bytes(whole)
    assert model.load_chat(saved).ask("Why?", **SHORT).usage.reused_tokens > 50


def test_whole_files_that_mean_nothing_are_refused(model, saved):
    good = read_chat_file(saved, model.binding())
    cache = [name for name in good.arrays if name.startswith("cache.")]
    changes = [
        {"head": {}},
        {"head": {**good.head, "pictures": [{"width": 1}]}},
        {"head": {**good.head, "digests": ["zz"]}},
        {"head": {**good.head, "digests": []}},
        {"arrays": {}},
        {"arrays": {**good.arrays, "after": good.arrays["after"][:-3]}},
        {"arrays": {**good.arrays, cache[0]: good.arrays[cache[0]].reshape(-1)[: good.arrays[cache[0]].size // 2]}},
        {"arrays": {**good.arrays, "picture.0": good.arrays["picture.0"][:5]}},
    ]
    for change in changes:
        fields = {"binding": good.binding, "head": good.head, "arrays": good.arrays, **change}
        write_chat_file(saved, ChatFile(**fields))
        with pytest.raises(ChatFileError):
            model.load_chat(saved)
        assert model.generate("Hi", max_new_tokens=2).usage.completion_tokens == 2


def test_another_engine_keeps_the_words_and_computes_the_cache_anew(tiny_bundle, saved, model):
    other = "gguf" if model.engine == "onnx" else "onnx"
    with edge_mllm.load(tiny_bundle, engine=other, threads=1, check_hashes=False) as foreign:
        chat = foreign.load_chat(saved)
        assert chat.cache_left == f"another engine ({model.engine}, this model has {other})"
        assert chat.messages == model.load_chat(saved).messages
        told = chat.ask("Why?", **SHORT)
        assert told.usage.reused_tokens == 0 and told.usage.image_tokens == 52
        fresh = foreign.chat()
        fresh._messages = list(model.load_chat(saved).messages)
        fresh._pictures = list(model.load_chat(saved)._pictures)
        assert fresh.ask("Why?", **SHORT).text == told.text


def test_a_newer_engine_keeps_the_words(model, saved):
    file = read_chat_file(saved, model.binding())
    older = {**file.binding, "engine version": "0.0.1"}
    write_chat_file(saved, ChatFile(older, file.head, file.arrays))
    chat = model.load_chat(saved)
    assert chat.cache_left is not None and chat.cache_left.startswith("another engine version (0.0.1,")
    assert chat.ask("Why?", **SHORT).usage.image_tokens == 52
    assert model.load_chat(saved).messages == chat.messages[:2]


def test_what_was_said_can_be_read_in_the_file(model, saved):
    begin = saved.read_bytes()[:400]
    assert begin.startswith(b"edge-mllm chat 2\n") and b"\nYou: [picture] What is it?\n\nModel: " in begin


def test_files_without_a_transcript_are_read(model, saved):
    file = read_chat_file(saved, model.binding())
    entries = [[name, part.dtype.name, list(part.shape)] for name, part in file.arrays.items()]
    text = json.dumps({"binding": file.binding, "head": file.head, "arrays": entries}).encode()
    body = b"".join([struct.pack("<Q", len(text)), text, *(part.tobytes() for part in file.arrays.values())])
    saved.write_bytes(b"EDGECHT1" + hashlib.sha256(body).digest() + body)
    assert model.load_chat(saved).ask("Why?", **SHORT).usage.reused_tokens > 50
    saved.write_bytes(saved.read_bytes()[:-1])
    with pytest.raises(ChatFileError, match="damaged"):
        model.load_chat(saved)


def test_files_of_another_bundle_are_refused(saved, model):
    binding = model.binding()
    with pytest.raises(ChatFileError, match="another bundle"):
        read_chat_file(saved, {**binding, "bundle": "0" * 64})


def test_too_long_for_a_smaller_context(loading, saved):
    with loading(n_ctx=70) as small:
        with pytest.raises(ChatFileError, match="does not fit"):
            small.load_chat(saved)
        assert small.generate("Hi", max_new_tokens=2).usage.completion_tokens == 2


def test_full_disk_keeps_the_old_file(model, saved):
    before = saved.read_bytes()
    chat = model.load_chat(saved)
    chat.ask("Why?", **SHORT)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            chat.save(saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
