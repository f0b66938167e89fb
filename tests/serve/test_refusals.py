"""Every bad input is an error object of OpenAI's form with the right status, and names the field at fault."""

from __future__ import annotations

import io
import json
import socket
import struct
import zlib

import httpx
import pytest
from PIL import Image
from serve.server_process import LABEL, asking, data_url, error_of, png

TURN = {"role": "user", "content": "x"}


def body(**changed):
    return {"messages": [TURN], "max_tokens": 2, **changed}


def content(*items):
    return body(messages=[{"role": "user", "content": list(items)}])


def image(url):
    return content({"type": "image_url", "image_url": {"url": url}})


FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
WRONG = [
    ({}, "messages"),
    (body(messages=[]), "messages"),
    (body(messages="x"), "messages"),
    (body(messages=[TURN, {"role": "assistant", "content": "y"}]), "messages"),
    (body(messages=[{"role": "robot", "content": "x"}]), "messages[0].role"),
    (body(messages=[{"role": "user"}]), "messages[0].content"),
    (body(messages=[{"role": "user", "content": None}]), "messages[0].content"),
    (body(messages=[{**TURN, "tool_calls": [{}]}]), "messages[0].tool_calls"),
    (content({"type": "input_audio"}), "messages[0].content[0].type"),
    (content({"type": "text"}), "messages[0].content[0].text"),
    (content({"type": "image_url"}), "messages[0].content[0].image_url"),
    (
        content({"type": "image_url", "image_url": {"url": "data:", "detail": "best"}}),
        "messages[0].content[0].image_url.detail",
    ),
    (image("data:image/png;base64,%%%"), "messages[0].content[0].image_url"),
    (image("data:image/png,abc"), "messages[0].content[0].image_url"),
    (image("data:image/png;base64,AAAA"), "messages[0].content[0].image_url"),
    (image("data:image/png;base64,"), "messages[0].content[0].image_url"),
    (image("label.png"), "messages[0].content[0].image_url"),
    (image("ftp://example.com/x.png"), "messages[0].content[0].image_url"),
    (body(temperature=3), "temperature"),
    (body(temperature="hot"), "temperature"),
    (body(top_p=0), "top_p"),
    (body(n=2), "n"),
    (body(max_tokens=0), "max_tokens"),
    (body(max_completion_tokens=-1), "max_completion_tokens"),
    (body(stop=""), "stop"),
    (body(stop=["x"] * 17), "stop"),
    (body(top_logprobs=2), "top_logprobs"),
    (body(logprobs=True, top_logprobs=21), "top_logprobs"),
    (body(stream_options={"include_usage": True}), "stream_options"),
    (body(seed=1.5), "seed"),
    (body(logit_bias={"word": 1}), "logit_bias"),
    (body(logit_bias={"1": 101}), "logit_bias[...]"),
    (body(response_format={"type": "xml"}), "response_format.type"),
    (body(response_format=FORM), "response_format"),
    (body(tools=[{"type": "function"}]), "tools"),
    (body(modalities=["audio"]), "modalities[0]"),
    (body(max_memory="lots"), "max_memory"),
    (body(image_reduction="never"), "image_reduction"),
    (body(max_image_tokens=0), "max_image_tokens"),
    (body(max_ttft=0), "max_ttft"),
    (body(model="gpt-4o"), "model"),
    (body(tempereture=1), "tempereture"),
]


@pytest.mark.parametrize(("sent", "param"), WRONG, ids=lambda value: str(value)[:60])
def test_the_field_at_fault_is_named(served, sent, param):
    found = error_of(served.post("/v1/chat/completions", sent), 404 if sent.get("model") else 400)
    assert found["param"] == param
    assert found["type"] == ("not_found_error" if sent.get("model") else "invalid_request_error")


def test_a_wrong_name_has_the_right_one_beside_it(served):
    assert (
        "did you mean 'temperature'?"
        in error_of(served.post("/v1/chat/completions", body(tempereture=1)), 400)["message"]
    )


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"messages": [' + b'{"a":' * 50_000,
        b"\xff\xfe",
        b"null",
        b'{"messages": "\\ud800"}',
        b"NaN",
    ],
    ids=lambda value: repr(value[:20]),
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/plan", "/v1/embeddings"])
def test_what_is_no_json_object(served, path, sent):
    headers = {"content-type": "application/json"}
    error_of(httpx.post(served.url + path, content=sent, headers=headers, trust_env=False), 400)


def test_lone_surrogates_are_no_text(served):
    sent = b'{"messages": [{"role": "user", "content": "\\ud83d"}]}'
    headers = {"content-type": "application/json"}
    error_of(httpx.post(f"{served.url}/v1/chat/completions", content=sent, headers=headers, trust_env=False), 400)


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"]
)
def test_a_body_needs_its_content_type(served, kind):
    headers = {} if kind is None else {"content-type": kind}
    sent = json.dumps(body()).encode()
    error_of(httpx.post(f"{served.url}/v1/chat/completions", content=sent, headers=headers, trust_env=False), 415)
    headers = {"content-type": "application/json; charset=utf-8", "content-encoding": "gzip"}
    error_of(httpx.post(f"{served.url}/v1/chat/completions", content=sent, headers=headers, trust_env=False), 415)


def test_unknown_paths_and_methods(served):
    assert error_of(served.get("/v1/nothing"), 404)["code"] == "route_not_found"
    refused = served.get("/v1/chat/completions")
    assert error_of(refused, 405)["code"] == "method_not_allowed" and refused.headers["allow"] == "POST"
    assert error_of(served.get("/v1/models/other"), 404)["code"] == "model_not_found"


def test_a_prompt_that_does_not_fit(served):
    found = error_of(served.post("/v1/chat/completions", asking("word " * 4000)), 400)
    assert found["code"] == "context_length_exceeded"


def test_too_many_pictures(served):
    found = error_of(served.post("/v1/chat/completions", asking("x", *[png(seed=1, width=8, height=8)] * 17)), 400)
    assert found["code"] == "too_many_images"


def huge_png(width, height):
    """A picture of one grey that is small as a file."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0" * (width // 8 + 1) * 1000, 9)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(30_000, 30_000), (10_000, 10_000), (65_535, 65_535), (7_100, 7_100)])
def test_image_bombs_are_refused_by_their_header(served, size):
    before = served.resident_bytes
    for path, sent in (
        ("/v1/chat/completions", asking("x", huge_png(*size))),
        ("/v1/embeddings", {"input": data_url(huge_png(*size))}),
    ):
        assert error_of(served.post(path, sent), 400)["code"] in ("image_too_large", "invalid_image")
    assert served.resident_bytes - before < 60e6


def test_damaged_pictures(served):
    whole = LABEL.read_bytes()
    broken = [whole[: len(whole) // 2], whole[:100] + bytes(200) + whole[300:], b"GIF89a" + bytes(40)]
    out = io.BytesIO()
    Image.new("RGB", (40, 40)).save(out, "JPEG")
    broken += [out.getvalue()[:200], b"%!PS-Adobe EPSF\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>"]
    for data in broken:
        assert error_of(served.post("/v1/chat/completions", asking("x", data)), 400)["type"] == "invalid_request_error"


def test_a_stream_is_refused_with_its_status_too(served):
    error_of(served.post("/v1/chat/completions", asking("word " * 4000, stream=True)), 400)
    error_of(served.post("/v1/chat/completions", body(stream=True, response_format=FORM)), 400)


def test_what_is_not_http(served):
    with socket.create_connection(served.address, timeout=10) as client:
        client.sendall(b"what is this\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert (
        answer.startswith(b"HTTP/1.1 400")
        and json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"
    )


def test_the_server_is_well_after_all_this(served):
    assert served.get("/health").json()["status"] == "ok"
    assert (
        served.post("/v1/chat/completions", asking("What does it say?", LABEL))
        .json()["choices"][0]["message"]["content"]
        .strip()
        .startswith("Coffee")
    )
