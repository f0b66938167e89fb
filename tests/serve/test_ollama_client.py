"""What people do with the official ``ollama`` client works unchanged."""

from __future__ import annotations

import json

import httpx
import ollama
import pytest
from serve.server_process import LABEL, QUESTION, SIGN, data_url


@pytest.fixture(scope="module")
def client(served):
    return ollama.Client(served.url, timeout=60, trust_env=False)


def test_chat_with_pictures_and_turns(client, model):
    alone = model.generate(QUESTION, LABEL, max_new_tokens=512)
    first = {"role": "user", "content": QUESTION, "images": [str(LABEL)]}
    found = client.chat(model="starter", messages=[first])
    assert (found.message.role, found.message.content, found.done, found.done_reason) == (
        "assistant",
        alone.text,
        True,
        "stop",
    )
    assert (found.prompt_eval_count, found.eval_count) == (alone.usage.prompt_tokens, alone.usage.completion_tokens)
    assert found.total_duration > found.eval_duration > 0
    second = client.chat(
        model="starter", messages=[first, found.message, {"role": "user", "content": "What is the price?"}]
    )
    assert "4.60" in second.message.content


def test_streams_are_the_same_in_pieces(client):
    whole = client.generate(model="starter", prompt=QUESTION, images=[SIGN.read_bytes()])
    pieces = list(client.generate(model="starter", prompt=QUESTION, images=[SIGN.read_bytes()], stream=True))
    assert "".join(piece.response for piece in pieces) == whole.response and len(pieces) > 4
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    chatted = client.chat(
        model="starter", messages=[{"role": "user", "content": QUESTION, "images": [SIGN]}], stream=True
    )
    assert "".join(piece.message.content for piece in chatted) == whole.response


def test_a_stream_is_what_comes_without_asking(served):
    response = served.post("/api/generate", {"model": "starter", "prompt": "Hello", "options": {"num_predict": 3}})
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert lines[-1]["done"] and lines[-1]["done_reason"] == "length" and lines[-1]["x_edge_mllm"]["engine"] == "onnx"


def test_options_and_formats(client):
    def say(options=None, **more):
        return client.generate(
            model="starter:latest", prompt=QUESTION, images=[LABEL], options=options, **more
        ).response

    assert say({"stop": ["ff"], "num_ctx": 4096}).strip() == "Co"
    drawn = [
        say({"temperature": 2.0, "seed": seed, "num_predict": 12, "top_k": 40, "top_p": 0.9}) for seed in (4, 4, 5)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    schema = {
        "type": "object",
        "properties": {"word": {"enum": ["Tea", "Coffee"]}},
        "required": ["word"],
        "additionalProperties": False,
    }
    assert json.loads(say(format=schema))["word"] in ("Tea", "Coffee")
    assert say(ollama.Options(repeat_penalty=50.0, num_predict=6)) != say({"num_predict": 6})


def test_what_clients_ask_about_models(client, served):
    assert (
        [entry.model for entry in client.list().models] == ["starter"] == [entry.model for entry in client.ps().models]
    )
    assert "vision" in client.show("starter").capabilities
    assert served.get("/api/version").json()["version"][0].isdigit()
    assert client.generate(model="starter").done_reason == "load"
    assert served.get("/").status_code == 200 == httpx.head(served.url, trust_env=False).status_code


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"model": "other", "prompt": "x"}, 404, "no model 'other'"),
        ({"model": "starter", "prompt": "x", "options": {"temperature": -1}}, 400, "options.temperature"),
        ({"model": "starter", "prompt": "x", "options": {"mirostat": 2}}, 400, "options.mirostat"),
        ({"model": "starter", "prompt": "x", "raw": True}, 400, "raw"),
        ({"model": "starter", "prompt": "x", "images": ["!!"]}, 400, "base64"),
        ({"model": "starter", "prompt": "x", "images": ["AAAA"]}, 400, "not a picture"),
        ({"prompt": "x"}, 400, "'model' is missing"),
    ],
)
def test_errors_have_the_form_that_clients_read(served, body, status, told):
    response = served.post("/api/generate", body)
    assert response.status_code == status and set(response.json()) == {"error"} and told in response.json()["error"]


def test_the_client_raises_them(client):
    with pytest.raises(ollama.ResponseError, match="no model 'other'") as raised:
        client.chat(model="other", messages=[])
    assert raised.value.status_code == 404


def test_a_data_url_is_taken_too(served):
    body = {"model": "starter", "prompt": QUESTION, "images": [data_url(LABEL)], "stream": False}
    assert served.post("/api/generate", body).json()["response"].strip().startswith("Coffee")
