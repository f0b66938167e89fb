"""From pictures and prompts to answers, against transformers and against itself."""

import itertools

import numpy as np
import pytest
from PIL import Image

import edge_mllm
from edge_mllm import GenerateOptions
from edge_mllm.answer.decoding.sampling import SamplingOptions
from edge_mllm.errors import (
    ContextOverflowError,
    EngineError,
    ImageError,
    ModelNotFoundError,
    PromptError,
    SettingError,
)

ENGINES = ["onnx", "gguf"]
QUESTION = "What is the total?"


def picture(seed: int, width: int = 90, height: int = 60) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module", params=ENGINES)
def model(tiny_bundle, request):
    with edge_mllm.load(tiny_bundle, engine=request.param, threads=1, kv_type="f32") as loaded:
        yield loaded


@pytest.fixture
def fresh(tiny_bundle, model):
    """A second model that has seen nothing yet."""
    with edge_mllm.load(tiny_bundle, engine=model.engine, threads=1, kv_type="f32", check_hashes=False) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def reference(tiny_smolvlm):
    """Greedy answer and prompt ids of transformers."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(tiny_smolvlm, backend="pil")
    hf = AutoModelForImageTextToText.from_pretrained(tiny_smolvlm, dtype=torch.float32).eval()

    def answer(prompt, images, tokens=32):
        content = [*({"type": "image"} for _ in images), {"type": "text", "text": prompt}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(text=text, images=images or None, return_tensors="pt")
        with torch.no_grad():
            output = hf.generate(**inputs, max_new_tokens=tokens, do_sample=False)[0]
        length = inputs["input_ids"].shape[1]
        return inputs["input_ids"][0].numpy(), output[length:].tolist()

    return answer


@pytest.mark.parametrize("count", [0, 1, 2])
def test_answers_equal_transformers(model, reference, count):
    images = [picture(seed, 90 + 40 * seed, 60) for seed in range(count)]
    ids, expected = reference(QUESTION, images)
    assert model.prompt_ids(QUESTION, images).tolist() == ids.tolist()
    pieces = list(model.stream(QUESTION, images, max_new_tokens=32))
    assert [piece.token for piece in pieces] == expected
    answer = pieces[-1].answer
    assert answer.usage.prompt_tokens == len(ids)
    assert answer.usage.image_tokens == int((ids == model.spec.prompt.image_token_id).sum())
    assert answer.usage.completion_tokens == len(expected)
    assert [image.width for image in answer.images] == [image.width for image in images]
    assert answer.usage.image_tokens == sum(image.tokens for image in answer.images)


def test_pieces_add_up_to_the_answer(model):
    pieces = list(model.stream(QUESTION, [picture(0)], max_new_tokens=20))
    answer = pieces[-1].answer
    assert "".join(piece.text for piece in pieces) == answer.text
    assert all(piece.answer is None and piece.finish_reason is None for piece in pieces[:-1])
    assert answer.finish_reason == pieces[-1].finish_reason
    assert answer.text == model.generate(QUESTION, [picture(0)], max_new_tokens=20).text
    seconds = [piece.timings.decode_s for piece in pieces]
    assert seconds == sorted(seconds)
    assert seconds[0] == 0


def test_timings_and_costs(fresh):
    answer = fresh.generate(QUESTION, [picture(0)], max_new_tokens=8, ignore_eos=True)
    times = answer.timings
    stages = (times.load_s, times.preprocess_s, times.vision_s, times.prefill_s, times.decode_s)
    assert all(second > 0 for second in stages)
    assert times.ttft_s >= times.preprocess_s + times.vision_s + times.prefill_s
    assert times.prefill_tps == pytest.approx(answer.usage.prompt_tokens / times.prefill_s)
    assert times.decode_tps == pytest.approx(7 / times.decode_s)
    assert answer.peak_rss_bytes > answer.peak_anonymous_bytes > 20e6
    assert (answer.model, answer.engine) == ("tiny", fresh.engine)
    assert answer.finish_reason == "length"
    assert answer.usage.completion_tokens == 8


def test_text_only_never_loads_the_tower(fresh):
    assert fresh.generate("Hello", max_new_tokens=3).usage.image_tokens == 0
    assert not fresh._tower.loaded
    fresh.generate("Hello", [picture(0)], max_new_tokens=3)
    assert fresh._tower.loaded


def test_overflow_is_found_before_encoding(tiny_bundle, model):
    with edge_mllm.load(tiny_bundle, engine=model.engine, threads=1, n_ctx=100, check_hashes=False) as small:
        with pytest.raises(ContextOverflowError, match="52 of them for pictures"):
            small.generate(QUESTION, [picture(0)])
        with pytest.raises(ContextOverflowError):
            small.stream(QUESTION, [picture(0)])
        assert not small._tower.loaded
        answer = small.generate(QUESTION, [picture(0)], detail="low", max_new_tokens=500, ignore_eos=True)
        assert answer.finish_reason == "length"
        assert answer.usage.prompt_tokens + answer.usage.completion_tokens == 100


def test_second_question_about_a_picture_computes_only_itself(model, fresh):
    images = [picture(5), picture(6, 40, 120)]
    first = model.generate(QUESTION, images, max_new_tokens=10)
    second = model.generate("And the date?", images, max_new_tokens=10)
    alone = fresh.generate("And the date?", images, max_new_tokens=10)
    assert second.usage.reused_tokens > second.usage.image_tokens > 0
    assert second.timings.vision_s == 0
    assert second.text == alone.text
    assert alone.usage.reused_tokens == 0
    again = model.generate(QUESTION, images, max_new_tokens=10)
    assert again.text == first.text
    other = model.generate(QUESTION, [picture(5), picture(7, 40, 120)], max_new_tokens=10)
    assert 0 < other.usage.reused_tokens < second.usage.reused_tokens
    assert other.timings.vision_s > 0


def test_other_detail_is_another_picture(model):
    whole = model.generate(QUESTION, [picture(8)], max_new_tokens=2)
    low = model.generate(QUESTION, [picture(8)], max_new_tokens=2, detail="low")
    assert low.usage.reused_tokens == 0
    assert (low.images[0].tiles, whole.images[0].tiles) == (1, 13)


def test_image_budget(model):
    answer = model.generate(QUESTION, [picture(0)], max_new_tokens=2, max_image_tokens=30)
    assert 4 <= answer.usage.image_tokens <= 30
    with pytest.raises(PromptError):
        model.generate(QUESTION, [picture(0)], detail="high", max_image_tokens=30)


def test_chat_prefills_only_the_new_turn(model, fresh):
    chat = model.chat(system="Be brief.")
    request = GenerateOptions(max_new_tokens=12)
    first = chat.ask("What is this?", [picture(1)], **request)
    second = chat.ask("And what colour?", **request)
    third = chat.ask("Compare with this one.", [picture(2)], **request)
    assert first.usage.reused_tokens == 0 or first.usage.reused_tokens < 20
    assert second.usage.reused_tokens > first.usage.prompt_tokens - 5
    assert second.timings.vision_s == 0
    assert third.usage.reused_tokens > second.usage.prompt_tokens - 5
    assert third.usage.image_tokens == 2 * first.usage.image_tokens
    roles = [message["role"] for message in chat.messages]
    assert roles == ["system", *["user", "assistant"] * 3]

    cold = fresh.chat(system="Be brief.")
    cold._messages = list(chat.messages[:-2])
    cold._pictures = chat._pictures[:1]
    assert cold.ask("Compare with this one.", [picture(2)], **request).text == third.text


def test_a_chat_goes_on_after_an_answer_that_spells_the_image_token(model):
    """A page's source with <image> in it, read aloud: the next turn must neither fail nor take it for a picture."""
    chat = model.chat()
    first = chat.ask("What is this?", [picture(1)], max_new_tokens=3)
    chat._messages[-1] = {"role": "assistant", "content": [{"type": "text", "text": "<rss><image></image></rss>"}]}
    second = chat.ask("And <image>?", max_new_tokens=3)
    assert second.usage.image_tokens == first.usage.image_tokens
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


def test_broken_off_turn_stays_with_its_text(model, fresh):
    chat = model.chat()
    stream = chat.stream("Tell a story.", max_new_tokens=50)
    text = "".join(piece.text for piece in itertools.islice(stream, 6))
    stream.close()
    assert chat.messages[-1]["content"][0]["text"] == text
    follow = chat.ask("Go on.", max_new_tokens=10)
    cold = fresh.chat()
    cold._messages = list(chat.messages[:-2])
    assert cold.ask("Go on.", max_new_tokens=10).text == follow.text


def test_failed_turn_is_forgotten(model):
    chat = model.chat()
    chat.ask("Hello", max_new_tokens=3)
    before = chat.messages
    with pytest.raises(ImageError):
        chat.ask("And this?", ["/nowhere.png"])
    with pytest.raises(ContextOverflowError):
        chat.ask("word " * 3000)
    assert chat.messages == before


@pytest.mark.parametrize("where", ["prefill", "step"])
def test_interruption_leaves_the_model_usable(model, fresh, monkeypatch, where):
    genuine = getattr(model.decoder, where)
    calls = itertools.count()

    def interrupted(*args, **kwargs):
        result = genuine(*args, **kwargs)
        if next(calls) == 1:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(model.decoder, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.generate(QUESTION, [picture(20)], max_new_tokens=20, ignore_eos=True)
    monkeypatch.undo()
    expected = fresh.generate("And now?", [picture(20)], max_new_tokens=20).text
    assert model.generate("And now?", [picture(20)], max_new_tokens=20).text == expected


def test_two_answers_at_once_are_refused(model):
    first = model.stream(QUESTION, max_new_tokens=20, ignore_eos=True)
    next(first)
    with pytest.raises(EngineError, match="another answer"):
        model.stream("Another one", max_new_tokens=5, ignore_eos=True)
    assert len(list(first)) == 19
    assert len(list(model.stream("Another one", max_new_tokens=5, ignore_eos=True))) == 5


def test_sampling_is_repeatable(model):
    options = SamplingOptions(temperature=1.5, top_p=0.95, seed=4)
    runs = [model.generate(QUESTION, max_new_tokens=12, sampling=options).text for _ in range(2)]
    other = model.generate(QUESTION, max_new_tokens=12, sampling=SamplingOptions(temperature=1.5, seed=5)).text
    assert runs[0] == runs[1] != other


def test_stop_string_ends_the_answer(model):
    whole = model.generate(QUESTION, max_new_tokens=40, ignore_eos=True).text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    answer = model.generate(QUESTION, max_new_tokens=40, stop=[stop], ignore_eos=True)
    assert answer.finish_reason == "stop"
    assert answer.text == whole[: whole.find(stop)]


def test_stop_token_ends_the_answer(model, monkeypatch):
    pieces = list(model.stream(QUESTION, max_new_tokens=30, ignore_eos=True))
    stop = pieces[9].token
    first = [piece.token for piece in pieces].index(stop)
    monkeypatch.setattr(model.reader, "stop_token_ids", (stop,))
    answer = model.generate(QUESTION, max_new_tokens=30)
    assert answer.finish_reason == "stop"
    assert answer.usage.completion_tokens == first + 1


def test_logits_processors_see_every_step(model):
    lengths = []

    def only_seven(logits, generated):
        lengths.append(len(generated))
        masked = np.full_like(logits, -np.inf)
        masked[7] = 0
        return masked

    answer = model.chat().ask("Hi", max_new_tokens=4, processors=(only_seven,), ignore_eos=True)
    assert lengths == [0, 1, 2, 3]
    assert answer.usage.completion_tokens == 4


def test_preprocess_and_encode(model):
    tiles = model.preprocess(picture(0))
    assert tiles.pixels.shape == (13, 3, 32, 32)
    assert tiles.tokens == 52
    embeddings = model.encode(picture(0))
    assert embeddings.shape == (52, model.spec.decoder.n_embd)
    assert embeddings.dtype == np.float32


def test_pictures_of_every_kind(model, tmp_path):
    path = tmp_path / "a.png"
    picture(3).save(path)
    kinds = [path, str(path), path.read_bytes(), picture(3), np.asarray(picture(3))]
    texts = {model.generate(QUESTION, [kind], max_new_tokens=5).text for kind in kinds}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_new_tokens": 0}, SettingError),
        ({"stop": [""]}, SettingError),
        ({"detail": "huge"}, SettingError),
        ({"max_image_tokens": 0}, SettingError),
    ],
)
def test_bad_settings_are_refused_before_any_work(model, settings, error):
    with pytest.raises(error):
        model.stream(QUESTION, [picture(0)], **settings)


def test_bad_pictures(model, tmp_path):
    (tmp_path / "text.png").write_text("hello")
    for bad in (tmp_path / "none.png", tmp_path / "text.png", b"", np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(ImageError):
            model.generate(QUESTION, [bad])


def test_missing_model():
    with pytest.raises(ModelNotFoundError, match="no such"):
        edge_mllm.load("/nowhere/at.edge")


def test_bad_engine(tiny_bundle):
    with pytest.raises(EngineError, match="no engine 'tpu'"):
        edge_mllm.load(tiny_bundle, engine="tpu", check_hashes=False)


def test_answer_as_a_dictionary_has_the_named_keys(model):
    document = model.generate(QUESTION, [picture(0)], max_new_tokens=2).to_dict()
    assert list(document) == [
        "text", "finish_reason", "usage", "images", "timings", "peak_rss_bytes",
        "peak_anonymous_bytes", "model", "engine", "devices",
    ]  # fmt: skip
    assert list(document["usage"]) == ["prompt_tokens", "image_tokens", "completion_tokens"]
    assert list(document["images"][0]) == [
        "width", "height", "tiles", "tokens", "reduced", "source", "reduced_by", "tiles_reused",
    ]  # fmt: skip
    assert list(document["timings"]) == [
        "load_s", "preprocess_s", "vision_s", "prefill_s", "ttft_s", "decode_s", "prefill_tps", "decode_tps",
        "grammar_s", "probe_s", "picture_s",
    ]  # fmt: skip
