"""What the public functions take: options by name, messages, one value where a list is meant, nothing else."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edge_mllm
from edge_mllm import EdgeMLLMError
from edge_mllm.errors import ImageError, PromptError, SettingError

LABEL = Path(__file__).parents[2] / "starter" / "demo" / "label.png"
QUESTION = "What does it say?"
SAYS = "Coffee $4.60"


@pytest.fixture(scope="module", params=["onnx", "gguf"])
def model(request):
    with edge_mllm.load(engine=request.param) as loaded:
        yield loaded


def data_url() -> str:
    return "data:image/png;base64," + base64.b64encode(LABEL.read_bytes()).decode()


def test_the_public_surface_is_what_is_listed():
    assert all(getattr(edge_mllm, name) is not None for name in edge_mllm.__all__)  # imported when asked for
    public = {name for name in vars(edge_mllm) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(edge_mllm, name)).__name__ == "module"}
    assert public - modules - {"annotations"} == set(edge_mllm.__all__)


@pytest.mark.parametrize("give", ["str", "path", "bytes", "PIL", "array", "file", "list", "tuple", "generator"])
def test_one_picture_needs_no_list(model, give):
    picture = {
        "str": str(LABEL),
        "path": LABEL,
        "bytes": LABEL.read_bytes(),
        "PIL": Image.open(LABEL),
        "array": np.asarray(Image.open(LABEL).convert("RGB")),
        "file": io.BytesIO(LABEL.read_bytes()),
        "list": [LABEL],
        "tuple": (LABEL,),
        "generator": (path for path in [LABEL]),
    }[give]
    assert model.generate(QUESTION, picture).text.strip() == SAYS


def test_a_stop_string_alone_is_one_string(model):
    assert model.generate(QUESTION, LABEL, stop="60").text.strip() == "Coffee $4."
    assert model.generate(QUESTION, LABEL, stop=["60"]).text.strip() == "Coffee $4."


MESSAGES = {
    "text and image": [
        {"role": "user", "content": [{"type": "image", "image": LABEL}, {"type": "text", "text": QUESTION}]}
    ],
    "a path": [
        {"role": "user", "content": [{"type": "image", "path": str(LABEL)}, {"type": "text", "text": QUESTION}]}
    ],
    "image_url": [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": data_url()}}, {"type": "text", "text": QUESTION}],
        }
    ],
    "a picture beside them": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}],
}


@pytest.mark.parametrize("form", MESSAGES)
def test_messages_are_answered_as_the_prompt_is(model, form):
    images = LABEL if form == "a picture beside them" else ()
    expected = model.generate(QUESTION, LABEL)
    found = model.generate(messages=MESSAGES[form], images=images)
    assert (found.text, found.usage.prompt_tokens) == (expected.text, expected.usage.prompt_tokens)
    assert np.array_equal(model.prompt_ids(messages=MESSAGES[form], images=images), model.prompt_ids(QUESTION, LABEL))


def test_a_history_in_messages_is_what_a_chat_sees(model):
    chat = model.chat(system="Be short.")
    first = chat.ask(QUESTION, LABEL, max_new_tokens=8)
    second = chat.ask("And the price?", max_new_tokens=8)
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "image", "image": LABEL}, {"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "And the price?"},
    ]
    assert model.generate(messages=turns, max_new_tokens=8).usage.prompt_tokens == second.usage.prompt_tokens
    assert model.plan(messages=turns).prompt_tokens == second.usage.prompt_tokens


WRONG = {
    "no prompt": (lambda m: m.generate(), PromptError, "nothing to answer"),
    "a number": (lambda m: m.generate(5), PromptError, "the prompt is of type int; it must be text"),
    "a system number": (lambda m: m.generate("x", system=5), PromptError, "system message"),
    "both": (lambda m: m.generate("x", messages=[{"role": "user", "content": "y"}]), PromptError, "not both"),
    "no list": (lambda m: m.generate(messages="hello"), PromptError, "list of messages"),
    "no role": (lambda m: m.generate(messages=[{"content": "y"}]), PromptError, "role and content"),
    "a role": (lambda m: m.generate(messages=[{"role": "tool", "content": "y"}]), PromptError, "known: system"),
    "the model's turn": (
        lambda m: m.generate(messages=[{"role": "assistant", "content": "y"}]),
        PromptError,
        "must be the user's",
    ),
    "a kind": (
        lambda m: m.generate(messages=[{"role": "user", "content": [{"type": "audio"}]}]),
        PromptError,
        "known: text, image, image_url",
    ),
    "a place too many": (
        lambda m: m.generate(messages=[{"role": "user", "content": [{"type": "image"}]}]),
        PromptError,
        "1 places without a picture",
    ),
    "a web address": (
        lambda m: m.generate(
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}]}]
        ),
        ImageError,
        "only data: URLs",
    ),
    "damaged base64": (
        lambda m: m.generate(
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png;base64,@@"}]}]
        ),
        ImageError,
        "base64 is damaged",
    ),
    "images of another kind": (lambda m: m.generate("x", 7), ImageError, "neither a picture nor a list"),
    "None for images": (lambda m: m.generate("x", None), ImageError, "neither a picture nor a list"),
    "an unknown option": (lambda m: m.generate("x", max_tokens=5), SettingError, "there is no option max_tokens"),
    "a misspelt option": (lambda m: m.generate("x", max_new_token=5), SettingError, "did you mean max_new_tokens"),
    "a text as a number": (lambda m: m.generate("x", max_new_tokens="5"), SettingError, "must be a whole number"),
    "true as a number": (lambda m: m.generate("x", max_new_tokens=True), SettingError, "must be a whole number"),
    "a fraction of tokens": (lambda m: m.generate("x", max_new_tokens=2.5), SettingError, "must be a whole number"),
    "stop numbers": (lambda m: m.generate("x", stop=[60]), SettingError, "stop is 60"),
    "stop a number": (lambda m: m.generate("x", stop=60), SettingError, "stop is 60"),
    "a limit as text": (lambda m: m.generate("x", max_memory="1GB"), SettingError, "max_memory is '1GB'"),
    "tokens as text": (lambda m: m.generate("x", max_image_tokens="9"), SettingError, "must be a whole number"),
    "sampling as a dict": (lambda m: m.generate("x", sampling={"temperature": 1}), SettingError, "SamplingOptions"),
    "a reduction": (lambda m: m.generate("x", reduction=2), SettingError, "reduction is 2"),
    "a schema": (lambda m: m.generate("x", json_schema=5), SettingError, "json_schema is 5"),
}


@pytest.mark.parametrize("case", WRONG)
def test_everything_else_is_refused_in_one_sentence(model, case):
    call, kind, says = WRONG[case]
    with pytest.raises(kind, match=says) as caught:
        call(model)
    assert isinstance(caught.value, EdgeMLLMError) and "\n" not in str(caught.value)
    assert model.generate(QUESTION, LABEL).text.strip() == SAYS  # and the model goes on


def test_the_same_holds_in_streams_chats_plans_and_preparations(model):
    for call in (
        lambda: list(model.stream("x", stop=5)),
        lambda: model.chat().ask("x", stop=5),
        lambda: list(model.chat().stream("x", max_tokens=3)),
        lambda: model.plan("x", max_new_tokens="many"),
        lambda: model.prepare(LABEL, detail="finest"),
        lambda: model.chat(system=5),
        lambda: model.chat().ask(None),
    ):
        with pytest.raises(EdgeMLLMError):
            call()
    assert model.chat().ask(QUESTION, LABEL, stop="60").text.strip() == "Coffee $4."


def test_settings_of_loading_are_checked_for_their_type():
    for options in ({"threads": "2"}, {"n_ctx": 1.5}, {"chunk": "x"}, {"threads": True}):
        with pytest.raises(SettingError, match="must be a whole number"):
            edge_mllm.load(**options)


def test_a_schema_may_be_a_dict(model):
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    answer = model.generate(QUESTION, LABEL, json_schema=schema, max_new_tokens=60)
    if answer.finish_reason == "stop":
        assert isinstance(json.loads(answer.text)["n"], int)
