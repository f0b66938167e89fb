"""Log probabilities of an answer: the model's own, on both engines, and only where they are asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest

import edge_mllm
from edge_mllm.answer.decoding.logprobs import Logprobs
from edge_mllm.answer.decoding.penalties import CountPenalties, LogitBias
from edge_mllm.errors import SettingError
from edge_mllm.prompt.token_bytes import token_bytes

PIXELS = np.random.default_rng(3).integers(0, 256, (80, 120, 3), dtype=np.uint8)
QUESTION = "What does it say?"


@pytest.fixture(scope="module", params=["onnx", "gguf"])
def model(request):
    with edge_mllm.load(engine=request.param, threads=1) as loaded:
        yield loaded


def watched(model, **options):
    """An answer with its log probabilities, and the logits that the sampler saw, step by step."""
    seen = []

    def watch(logits, _generated):
        seen.append(logits.astype(np.float64))
        return logits

    return model.generate(QUESTION, PIXELS, processors=[watch], max_new_tokens=8, **options), seen


def test_they_are_the_log_softmax_of_the_logits(model):
    answer, seen = watched(model, logprobs=4)
    assert len(answer.logprobs) == answer.usage.completion_tokens == len(seen)
    for step, logits in zip(answer.logprobs, seen, strict=True):
        expected = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        best = np.argsort(-expected, kind="stable")[:4]
        assert [each.token for each in step.top] == best.tolist() and step.chosen == step.top[0]
        assert np.allclose([each.logprob for each in step.top], expected[best], atol=1e-9)
    told = answer.logprobs if answer.finish_reason == "length" else answer.logprobs[:-1]
    assert b"".join(step.chosen.data for step in told).decode() == answer.text


def test_they_do_not_change_the_answer_and_are_told_only_where_asked(model):
    plain, told = model.generate(QUESTION, PIXELS), model.generate(QUESTION, PIXELS, logprobs=0)
    assert (plain.text, plain.logprobs) == (told.text, None) and "logprobs" not in plain.to_dict()
    assert all(step.top == () for step in told.logprobs)
    first = json.loads(json.dumps(told.to_dict()))["logprobs"][0]
    assert set(first) == {"token", "text", "bytes", "logprob", "top"} and first["logprob"] <= 0
    pieces = list(model.stream(QUESTION, PIXELS, logprobs=2))
    assert [piece.logprobs.chosen for piece in pieces] == [step.chosen for step in told.logprobs]


def test_they_are_those_before_masks_penalties_and_draws(model):
    plain, drawn = (model.generate(QUESTION, PIXELS, logprobs=1, max_new_tokens=1, **more).logprobs[0] for more in (
        {}, {"sampling": edge_mllm.SamplingOptions(temperature=5.0, seed=1), "processors": [CountPenalties(1, 1)]}
    ))  # fmt: skip
    assert plain.top == drawn.top
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    if model.engine == "onnx":
        held = model.generate(QUESTION, PIXELS, logprobs=1, max_new_tokens=1, json_schema=schema).logprobs[0]
        assert held.top == plain.top and held.chosen.text == "{" and held.chosen.logprob < plain.top[0].logprob


@pytest.mark.parametrize("value", [-1, 21, 1.5, True])
def test_numbers_outside_their_range(model, value):
    with pytest.raises(SettingError, match="logprobs is"):
        model.generate(QUESTION, PIXELS, logprobs=value)


def test_a_vocabulary_smaller_than_asked():
    found = Logprobs(20, lambda token: bytes([token]))(np.array([0.0, np.log(3)], np.float32), 0)
    assert [each.token for each in found.top] == [1, 0] and np.isclose(np.exp(found.chosen.logprob), 0.25)


def test_bytes_of_every_token_of_the_starter():
    """Together they spell what the tokenizer reads, also where a character is spread over tokens."""
    with edge_mllm.load() as model:
        tokenizer = model.reader.tokenizer
        for text in ("What does it say? Coffee $4.60", "naïve Straße 東京 🍵 é", "a  b\n\tc"):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            assert b"".join(token_bytes(tokenizer, token) for token in ids).decode() == tokenizer.decode(ids)
        assert token_bytes(tokenizer, model.reader.stop_token_ids[0]) == b"" == token_bytes(tokenizer, 10**6)


def test_bytes_of_a_byte_level_vocabulary():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    for text in ("a b", "é東🍵\x00\x7f"):
        ids = tokenizer.encode(text).ids
        assert [token_bytes(tokenizer, token) for token in ids] == [bytes([byte]) for byte in text.encode()]


def test_bytes_of_a_vocabulary_with_byte_pieces():
    from tokenizers import Tokenizer, decoders, models

    vocabulary = {"<unk>": 0, "▁the": 1, "the": 2, "a": 3, **{f"<0x{byte:02X}>": 4 + byte for byte in range(256)}}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    assert [token_bytes(tokenizer, token) for token in (1, 2, 3)] == [b" the", b"the", b"a"]
    assert [token_bytes(tokenizer, 4 + byte) for byte in (0, 65, 0xE2)] == [b"\0", b"A", b"\xe2"]


def test_penalties_follow_openai_s_formula():
    logits = np.arange(5, dtype=np.float32)
    found = CountPenalties(0.5, 2.0)(logits, [1, 3, 3])
    assert found.tolist() == [0, 1 - 0.5 - 2, 2, 3 - 1 - 2, 4] and logits.tolist() == [0, 1, 2, 3, 4]
    assert CountPenalties(0.5, 2.0)(logits, []) is logits
    assert LogitBias({4: -100, 0: 7}, 5)(logits, []).tolist() == [7, 1, 2, 3, -96]
    with pytest.raises(SettingError, match="there is no token 5"):
        LogitBias({5: 1}, 5)
