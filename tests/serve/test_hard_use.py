"""Clients that leave, dawdle, flood or are killed: the server goes on, answers the others, and keeps its bounds."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import openai
import pytest
from serve.server_process import LABEL, QUESTION, asking, error_of, events, png, serving
from serve.slow_edge_mllm import STEPS


@pytest.fixture(scope="module")
def small():
    """A server with narrow bounds."""
    bounds = [
        "--queue",
        "3",
        "--max-body",
        "300kB",
        "--read-timeout",
        "1",
        "--timeout",
        "20",
        "--max-answer-tokens",
        "1600",
        "--threads",
        "1",
    ]
    with serving(*bounds, slow=True) as running:
        yield running


@pytest.fixture(scope="module")
def endless(model):
    """What makes an answer go on until its limit: no token that ends the turn may be chosen."""
    return {"max_tokens": 1600, "logit_bias": {str(token): -100 for token in model.reader.stop_token_ids}}


def wait_until(true, seconds=60.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def is_idle(served):
    health = served.get("/health").json()
    return not health["busy"] and not health["waiting"]


def request_bytes(served, body, path="/v1/chat/completions"):
    sent = json.dumps(body).encode()
    return head_bytes(path, len(sent)) + sent


def head_bytes(path, length):
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {length}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def test_an_answer_ends_when_its_client_leaves(endless, tmp_path):
    steps = tmp_path / "steps"
    with serving("--threads", "1", slow=True, env={STEPS: str(steps)}) as running:
        with socket.create_connection(running.address, timeout=60) as client:
            client.sendall(request_bytes(running, asking(QUESTION, LABEL, stream=True, **endless)))
            wait_until(steps.exists)
        wait_until(lambda: is_idle(running))
        first = int(steps.read_text())
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{running.url}/v1/chat/completions", json=asking(**endless), timeout=0.5, trust_env=False)
        wait_until(lambda: is_idle(running))
        assert first < 1200 and int(steps.read_text()) - first < 1200  # and not 1,599


def test_waiting_requests_leave_the_queue_with_their_clients(small, endless):
    streams = [socket.create_connection(small.address, timeout=20) for _ in range(3)]
    for number, stream in enumerate(streams):
        stream.sendall(request_bytes(small, asking(stream=True, **endless)))
        wait_until(
            lambda number=number: small.get("/health").json() == {"status": "ok", "busy": True, "waiting": number}
        )
    for stream in streams[1:]:
        stream.close()
    wait_until(lambda: small.get("/health").json()["waiting"] == 0)
    streams[0].close()
    wait_until(lambda: is_idle(small))


def test_the_queue_is_bounded_and_fair(small, endless):
    def ask(user, **more):
        return small.post("/v1/chat/completions", asking(max_tokens=2, user=user, **more))

    with socket.create_connection(small.address, timeout=30) as holder:
        holder.sendall(request_bytes(small, asking(stream=True, user="holder", **endless)))
        wait_until(lambda: small.get("/health").json()["busy"])
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            greedy = [pool.submit(ask, "greedy") for _ in range(2)]
            wait_until(lambda: small.get("/health").json()["waiting"] == 2)
            refused = ask("greedy")
            assert error_of(refused, 429)["code"] == "too_many_requests" and int(refused.headers["retry-after"]) >= 1
            modest = pool.submit(ask, "modest")
            wait_until(lambda: small.get("/health").json()["waiting"] == 3)
            refused = ask("third")
            assert error_of(refused, 503)["code"] == "queue_full" and int(refused.headers["retry-after"]) >= 1
            holder.close()
            order = []
            for future, name in [*((each, "greedy") for each in greedy), (modest, "modest")]:
                assert future.result().status_code == 200
                order.append((future.result().json()["x_edge_mllm"]["timings"]["queue_s"], name))
    assert [name for _, name in sorted(order)].index("modest") < 2


def test_the_openai_client_waits_as_it_is_told(small, endless):
    """Its own repeats find room once the queue is empty again."""
    holders = [socket.create_connection(small.address, timeout=30) for _ in range(3)]
    for number, holder in enumerate(holders):
        holder.sendall(request_bytes(small, asking(stream=True, user=str(number), **endless)))
    wait_until(lambda: small.get("/health").json()["waiting"] >= 2)
    threading.Timer(0.3, lambda: [holder.close() for holder in holders]).start()
    with openai.OpenAI(base_url=f"{small.url}/v1", api_key="none", max_retries=5) as client:
        assert client.chat.completions.create(model="starter", **asking(max_tokens=2)).choices
    wait_until(lambda: is_idle(small))


def test_a_request_has_its_time(endless):
    with serving("--timeout", "2", "--threads", "1", slow=True) as running:
        found = running.post("/v1/chat/completions", asking(**endless))
        assert error_of(found, 504)["code"] == "timeout"
        with httpx.stream(
            "POST", f"{running.url}/v1/chat/completions", json=asking(stream=True, **endless), trust_env=False
        ) as stream:
            assert stream.status_code == 200
            *pieces, last = events(stream)
        assert len(pieces) > 5 and last["error"]["code"] == "timeout"
        wait_until(lambda: is_idle(running))


def test_clients_that_are_killed(served, endless):
    program = (
        "import openai, sys; c = openai.OpenAI(base_url=sys.argv[1] + '/v1', api_key='x')\n"
        f"for chunk in c.chat.completions.create(model='starter', stream=True, extra_body={endless!r}, "
        "messages=[{'role': 'user', 'content': 'x'}]): print('.', flush=True)"
    )
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", program, served.url], stdout=subprocess.PIPE) as client:
            assert client.stdout is not None and client.stdout.readline() == b".\n"
            os.kill(client.pid, signal.SIGKILL)
    wait_until(lambda: is_idle(served))


def test_heads_and_bodies_that_dawdle(small):
    """Connections that never say what they want are closed; meanwhile others are answered."""
    starts = [b"", b"POST /v1/chat", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n"]
    slow = [socket.create_connection(small.address, timeout=10) for _ in range(30)]
    for number, each in enumerate(slow):
        each.sendall(starts[number % 3])
    body = socket.create_connection(small.address, timeout=10)
    body.sendall(request_bytes(small, asking())[:-5])
    assert small.post("/v1/chat/completions", asking(max_tokens=2)).status_code == 200
    assert body.recv(4096).startswith(b"HTTP/1.1 408")
    assert [each.recv(64) for each in slow] == [b""] * len(slow)
    drip = socket.create_connection(small.address, timeout=10)
    with pytest.raises(OSError):
        for byte in b"GET / HTTP/1.1\r\nX-Slow: " + b"y" * 200:
            drip.sendall(bytes([byte]))
            time.sleep(0.05)
    for each in (*slow, body, drip):
        each.close()


def test_more_connections_than_are_taken(served):
    held = [socket.create_connection(served.address, timeout=10) for _ in range(300)]
    try:
        closed = 0
        for each in held:
            each.settimeout(0.005)
            with contextlib.suppress(TimeoutError):
                closed += each.recv(1) == b""
        assert 40 <= closed <= 60
    finally:
        for each in held:
            each.close()
    wait_until(lambda: is_idle(served))


def test_oversized_bodies(small):
    sent = asking("x", png(seed=1, width=8, height=8) + bytes(400_000))
    assert error_of(small.post("/v1/chat/completions", sent), 413)["code"] == "body_too_large"

    def chunks():
        yield b'{"messages": "'
        for _ in range(200):
            yield b"x" * 10_000

    headers = {"content-type": "application/json"}
    try:
        found = httpx.post(f"{small.url}/v1/chat/completions", content=chunks(), headers=headers, trust_env=False)
        assert error_of(found, 413)
    except httpx.TransportError:  # the server need not listen to the end
        pass
    with socket.create_connection(small.address, timeout=10) as client:
        client.sendall(head_bytes("/plan", 10**11))
        assert client.recv(64).startswith(b"HTTP/1.1 413")


def test_heads_that_are_too_large(small):
    with socket.create_connection(small.address, timeout=10) as client:
        try:
            client.sendall(
                b"GET / HTTP/1.1\r\nHost: localhost\r\n"
                + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(200))
            )
            assert client.recv(64).startswith(b"HTTP/1.1 400")
        except ConnectionError:  # closed before all was sent
            pass


def test_a_client_that_does_not_read(small, endless):
    """Its stream does not hold the model, and its connection is dropped."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.connect(small.address)
        options = {**endless, "logprobs": True, "top_logprobs": 20}
        client.sendall(request_bytes(small, asking(stream=True, **options)))
        wait_until(lambda: not is_idle(small))
        wait_until(lambda: is_idle(small))
        assert small.post("/v1/chat/completions", asking(max_tokens=2)).status_code == 200


def test_a_server_that_stops_tells_its_clients(endless):
    """What runs has some seconds, what waits is refused at once, and nothing is an error of the server."""
    with serving("--threads", "1", slow=True) as running, concurrent.futures.ThreadPoolExecutor(8) as pool:
        body = asking(**endless | {"max_tokens": 600})  # a server that stops lets go on for 5 s
        asked = [pool.submit(running.post, "/v1/chat/completions", body) for _ in range(6)]
        wait_until(lambda: running.get("/health").json()["waiting"] == 5)
        dawdling = socket.create_connection(running.address, timeout=20)
        dawdling.sendall(request_bytes(running, body)[:-5])
        running.process.terminate()
        found = [each.result() for each in asked]
        assert [each.status_code for each in found].count(200) == 1
        assert {error_of(each, 503)["code"] for each in found if each.status_code != 200} == {"shutting_down"}
        assert dawdling.recv(4096).startswith(b"HTTP/1.1 503")


def test_answers_do_not_depend_on_what_was_asked_before(served, model):
    """Prefixes and pictures are shared, and do not change an answer."""
    pictures = [png(seed=seed, width=200 + 100 * seed, height=300) for seed in range(3)] + [LABEL.read_bytes()]
    expected = {}
    for round_ in range(2):
        for number, picture in enumerate(pictures):
            for question in (QUESTION, "What is the price?"):
                found = served.post("/v1/chat/completions", asking(question, picture, max_tokens=24)).json()
                text = found["choices"][0]["message"]["content"]
                alone = expected.setdefault(
                    (number, question), model.generate(question, picture, max_new_tokens=24).text
                )
                assert text == alone, (round_, number, question)


def test_the_servers_are_well_after_all_this(served, small):
    for each in (served, small):
        wait_until(lambda each=each: is_idle(each))
        assert "Coffee" in each.post("/v1/chat/completions", asking(QUESTION, LABEL)).text
