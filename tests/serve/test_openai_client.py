"""What people do with the official ``openai`` client works unchanged, and gives what ``Model.generate`` gives."""

from __future__ import annotations

import base64
import json
import math

import jsonschema
import numpy as np
import openai
import pytest
from serve.server_process import LABEL, QUESTION, SIGN, asking, data_url, png

from edge_mllm.answer.decoding.penalties import CountPenalties

PIXELS = png(seed=1, width=640, height=480)
SCHEMA = {
    "type": "object",
    "properties": {"word": {"enum": ["Tea", "Coffee", "Bread"]}, "dear": {"type": "boolean"}},
    "required": ["word", "dear"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def create(client, *pictures, text=QUESTION, **options):
    return client.chat.completions.create(model="starter", **asking(text, *pictures), **options)


def test_a_picture_and_what_it_cost(client, model):
    found, alone = create(client, LABEL), model.generate(QUESTION, LABEL, max_new_tokens=512)
    (choice,) = found.choices
    assert (choice.message.content, choice.finish_reason) == (alone.text, alone.finish_reason)
    assert (found.object, found.model, choice.message.role) == ("chat.completion", "starter", "assistant")
    usage, counted = found.usage, alone.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (counted.prompt_tokens, counted.completion_tokens)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.image_tokens == counted.image_tokens == 180
    costs = found.x_edge_mllm
    assert costs["engine"] == model.engine and costs["timings"]["ttft_s"] > costs["timings"]["queue_s"] >= 0
    (picture,) = costs["images"]
    assert (picture["width"], picture["tiles"], picture["tokens"]) == (640, 5, 180)
    tiling = picture["tiling"]
    assert (tiling["rows"], tiling["columns"], tiling["overview"], len(tiling["boxes"])) == (2, 2, True, 4)
    assert tiling["boxes"][0][:2] == [0, 0] and tiling["boxes"][-1][2:] == [640, 480]


def test_a_stream_gives_the_same_in_pieces(client):
    whole = create(client, SIGN)
    chunks = list(create(client, SIGN, stream=True, stream_options={"include_usage": True}))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"} and len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == whole.choices[0].message.content and sum(map(bool, texts)) > 3
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-2].x_edge_mllm["images"][0]["source"] == "kv"


def test_a_stream_tells_tiles_where_it_is_asked(client):
    chunks = list(create(client, PIXELS, stream=True, stream_options={"include_progress": True}, max_tokens=1))
    told = [chunk.x_edge_mllm for chunk in chunks if hasattr(chunk, "x_edge_mllm")]
    (tilings,) = [each["tilings"] for each in told if "tilings" in each]
    assert len(tilings[0]["boxes"]) == tilings[0]["rows"] * tilings[0]["columns"]
    tiles = [each["progress"]["tile"] for each in told if "progress" in each]
    assert tiles == list(range(len(tilings[0]["boxes"]) + 2))
    assert all(chunk.choices for chunk in create(client, LABEL, stream=True))


def test_json_of_a_schema(client, model):
    form = {"type": "json_schema", "json_schema": {"name": "label", "schema": SCHEMA, "strict": True}}
    found = create(client, LABEL, response_format=form)
    held = found.choices[0].message.content
    jsonschema.validate(json.loads(held), SCHEMA)
    assert held == model.generate(QUESTION, LABEL, json_schema=SCHEMA).text
    assert found.x_edge_mllm["timings"]["grammar_s"] > 0
    any_object = create(client, LABEL, response_format={"type": "json_object"}, max_tokens=9)
    assert any_object.choices[0].message.content.startswith("{")


def test_a_second_turn_keeps_the_picture(client, model):
    first = create(client, LABEL)
    turns = [
        *asking(QUESTION, LABEL)["messages"],
        first.choices[0].message,
        {"role": "user", "content": "What is the price?"},
    ]
    second = client.chat.completions.create(model="starter", messages=turns)
    assert second.usage.prompt_tokens_details.cached_tokens > 180
    assert second.x_edge_mllm["images"][0]["source"] == "kv" and second.x_edge_mllm["timings"]["vision_s"] == 0
    said = [
        {"role": "user", "content": [{"type": "image"}, QUESTION]},
        first.choices[0].message.model_dump(),
        turns[-1],
    ]
    said[1] = {"role": "assistant", "content": said[1]["content"]}
    assert second.choices[0].message.content == model.generate(messages=said, images=LABEL, max_new_tokens=512).text


def test_pictures_in_several_turns_and_a_system_message(client, model):
    def turns(label, sign):
        return [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": [label, {"type": "text", "text": QUESTION}]},
            {"role": "assistant", "content": "Coffee $4.60"},
            {"role": "user", "content": [{"type": "text", "text": "And here?"}, sign]},
        ]

    urls = [{"type": "image_url", "image_url": {"url": data_url(picture)}} for picture in (LABEL, SIGN)]
    found = client.chat.completions.create(model="starter", messages=turns(*urls), max_completion_tokens=20)
    paths = [{"type": "image", "path": picture} for picture in (LABEL, SIGN)]
    assert found.choices[0].message.content == model.generate(messages=turns(*paths), max_new_tokens=20).text
    assert len(found.x_edge_mllm["images"]) == 2


def test_log_probabilities(client, model):
    found = create(client, LABEL, logprobs=True, top_logprobs=3)
    told = found.choices[0].logprobs.content
    assert "".join(token.token for token in told) == found.choices[0].message.content
    assert b"".join(bytes(token.bytes) for token in told).decode() == found.choices[0].message.content
    for token in told:
        probabilities = [math.exp(each.logprob) for each in token.top_logprobs]
        assert (
            len(probabilities) == 3 and probabilities == sorted(probabilities, reverse=True) and sum(probabilities) <= 1
        )
        assert token.token == token.top_logprobs[0].token and token.logprob == token.top_logprobs[0].logprob
    alone = model.generate(QUESTION, LABEL, logprobs=3).logprobs
    assert [token.logprob for token in told] == [step.chosen.logprob for step in alone[: len(told)]]
    streamed = [
        chunk.choices[0].logprobs for chunk in create(client, LABEL, logprobs=True, stream=True) if chunk.choices
    ]
    assert [token.logprob for each in streamed if each for token in each.content] == [token.logprob for token in told]
    assert create(client, LABEL).choices[0].logprobs is None


def test_stop_seed_and_lengths(client):
    assert create(client, LABEL, stop="ff").choices[0].message.content.strip() == "Co"
    assert create(client, LABEL, stop=["nothing", "ee"]).choices[0].message.content.strip() == "Coff"
    drawn = [
        create(client, LABEL, temperature=2, seed=seed, max_tokens=12).choices[0].message.content for seed in (5, 5, -6)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    cut = create(client, LABEL, max_completion_tokens=3)
    assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 3)


def test_penalties_and_bias_change_the_answer(client, model):
    plain = create(client, LABEL).choices[0].message.content
    assert "ff" in plain and "ee" in plain
    held = create(client, LABEL, frequency_penalty=2, presence_penalty=2, max_tokens=9).choices[0].message.content
    penalties = [CountPenalties(2.0, 2.0)]
    assert held == model.generate(QUESTION, LABEL, processors=penalties, max_new_tokens=9).text
    token = model.generate(QUESTION, LABEL, logprobs=0, max_new_tokens=2).logprobs[1].chosen
    assert token.text == "C"
    without = create(client, LABEL, logit_bias={str(token.token): -100}).choices[0].message.content
    assert "C" not in without
    with pytest.raises(openai.BadRequestError, match="logit_bias is for tokens 0 to"):
        create(client, LABEL, logit_bias={"123456": 1})


def test_each_picture_has_its_own_detail(client):
    body = asking(QUESTION, LABEL, SIGN)
    body["messages"][0]["content"][0]["image_url"]["detail"] = "low"
    found = client.chat.completions.create(model="starter", **body)
    first, second = found.x_edge_mllm["images"]
    assert (first["tiles"], first["reduced_by"]) == (1, "detail") and second["tiles"] > 1 and not second["reduced"]


def test_limits_hold_for_one_request(client):
    def images(**extra):
        return create(client, LABEL, extra_body=extra).x_edge_mllm["images"][0]

    assert images(max_image_tokens=40)["reduced_by"] == "max_image_tokens"
    assert images(detail="low")["tiles"] == 1 and images()["tiles"] == 5
    assert images(max_memory="4GB", max_ttft=600)["tiles"] == 5
    assert images(image_reduction="uniform:1/2")["tokens"] == 90
    for extra, param in (({"max_memory": "10MB"}, "max_memory"), ({"max_ttft": 1e-6}, "max_ttft")):
        with pytest.raises(openai.BadRequestError) as raised:
            images(**extra)
        assert (raised.value.param, raised.value.code) == (param, "limit_exceeded")


def test_embeddings_of_pictures(served, client, model):
    rows, url, extra = model.encode(LABEL), data_url(LABEL), {"pooling": "none"}
    mean, other = client.embeddings.create(model="starter", input=[url, data_url(SIGN)]).data
    assert np.allclose(mean.embedding, rows.mean(axis=0), atol=1e-6) and len(other.embedding) == 256
    each = client.embeddings.create(model="starter", input=url, encoding_format="float", extra_body=extra)
    assert np.array_equal(np.array(each.data[0].embedding, np.float32), rows) and each.usage.total_tokens == 180
    packed = served.post("/v1/embeddings", {"input": url, "encoding_format": "base64", **extra}).json()["data"][0]
    values = np.frombuffer(base64.b64decode(packed["embedding"]), "<f4")
    assert np.array_equal(values.reshape(packed["x_edge_mllm"]["shape"]), rows)
    with pytest.raises(openai.BadRequestError) as raised:
        client.embeddings.create(model="starter", input=["words"])
    assert raised.value.param == "input[0]"


def test_models(client):
    assert [entry.id for entry in client.models.list()] == ["starter"]
    assert client.models.retrieve("starter").owned_by == "edge-mllm"
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="gpt-4o", **asking())
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


def test_a_plan_says_what_the_answer_takes(served, client):
    body = asking("Plan this.", LABEL)
    planned, found = served.post("/plan", body).json(), client.chat.completions.create(model="starter", **body)
    assert (planned["prompt_tokens"], planned["image_tokens"]) == (found.usage.prompt_tokens, 180)
    assert planned["fits"] and planned["peak_bytes"] > 50e6 and planned["images"][0]["tiles"] == 5
    assert served.post("/plan", asking("x" * 5000)).json()["fits"] is False
