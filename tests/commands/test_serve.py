"""``edge-mllm serve`` with every option, as its clients see it; what they ask in detail is in tests/serve."""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from commands.command_line import DEMO, STARTER, command_environment, run_command
from tls_certificate import make_certificate

LABEL = DEMO / "label.png"
URL = "data:image/png;base64," + base64.b64encode(LABEL.read_bytes()).decode()
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextmanager
def serving(*words, first=r"^starter on \w+ at (http://127\.0\.0\.1:\d+) \(Ctrl-C ends\)$"):
    """A server, by its address; Ctrl-C ends it."""
    command = [sys.executable, "-m", "edge_mllm", "serve", "--port", "0", *map(str, words)]
    with subprocess.Popen(command, env=command_environment(), stderr=subprocess.PIPE, text=True) as process:
        lines = []
        while not (found := re.search(first, lines[-1] if lines else "")):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        try:
            yield found[1]
        finally:
            process.send_signal(signal.SIGINT)
            rest = process.communicate(timeout=30)[1]
    assert (process.returncode, rest) == (0, "")


def ask(url, picture=URL, headers=None, **fields):
    """Status and document of an answer."""
    content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": "What does it say?"}]
    body = {"messages": [{"role": "user", "content": content}], **fields}
    sent = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), sent)
    try:
        with OPENER.open(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def text_of(found):
    status, document = found
    assert status == 200, document
    return document["choices"][0]["message"]["content"].strip()


@pytest.mark.parametrize(
    "words",
    [
        ("-m", STARTER, "--engine", "gguf", "--kv-type", "f16", "--no-large-pages"),
        (
            "--model",
            STARTER,
            "--engine",
            "onnx",
            "--threads",
            1,
            "--no-prompt-weights",
            "--vision-engine",
            "ort",
            "--provider",
            "cpu",
        ),
        ("--prompt-weights", "--low-memory", "--large-pages", "--max-memory", "4GB", "--host", "127.0.0.1"),
    ],
    ids=str,
)
def test_the_model_s_options_are_those_of_other_commands(words):
    with serving(*words) as url:
        assert text_of(ask(url)).startswith("Coffee")


def test_a_kept_cache_and_a_short_context(tmp_path):
    with serving("--cache-dir", tmp_path, "--n-ctx", 230) as url:
        assert text_of(ask(url)).startswith("Coffee") and list(tmp_path.iterdir())
        status, document = ask(url, messages=[{"role": "user", "content": "x " * 300}])
        assert (status, document["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--precision", "q4"), "no directory of published"),
        (("--mmproj", LABEL), "mmproj"),
        (("-m", "no/such-model", "--layout", "gguf", "--quant", "Q8_0"), "no/such-model"),
        (("--max-memory", "1kB"), "max_memory allows 0 MB"),
    ],
)
def test_models_that_cannot_be_served(words, told):
    done = run_command("serve", *words, env={"HF_HUB_OFFLINE": "1"})
    assert done.code == 1 and len(done.errors) == 1 and told in done.errors[0], done.errors


def test_names_keys_and_places(tmp_path):
    (tmp_path / "a.png").write_bytes(LABEL.read_bytes())
    access = ("--name", "eyes", "--api-key", "word", "--allow-files", tmp_path, "--allow-urls", "pictures.example")
    with serving(*access, "--allow-host", "box.example", "--allow-origin", "https://page.example") as url:
        key = {"Authorization": "Bearer word", "Host": "box.example", "Origin": "https://page.example"}
        assert ask(url)[0] == 401
        assert text_of(ask(url, f"file://{tmp_path}/a.png", key, model="eyes")).startswith("Coffee")
        assert ask(url, "http://other.example/a.png", key)[1]["error"]["code"] == "cannot_fetch"
        assert ask(url, headers=key | {"Host": "other.example"})[0] == 403


def test_bounds():
    narrow = [
        "--queue",
        "2",
        "--timeout",
        "30",
        "--read-timeout",
        "5",
        "--max-body",
        "100kB",
        "--max-images",
        "1",
        "--max-megapixels",
        "0.5",
    ]
    with serving(*narrow, "--max-answer-tokens", 3) as url:
        status, document = ask(url, max_tokens=50)
        assert (status, document["usage"]["completion_tokens"]) == (200, 3)
        large = ask(url, URL + "A" * 100_000)
        assert (large[0], large[1]["error"]["code"]) == (413, "body_too_large")
        picture = {"type": "image_url", "image_url": {"url": URL}}
        two = ask(url, messages=[{"role": "user", "content": [picture, picture]}])
        assert (two[0], two[1]["error"]["code"]) == (400, "too_many_images")
    with serving("--max-megapixels", 0.1) as url:
        assert ask(url)[1]["error"]["code"] == "image_too_large"


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_https_and_quiet(tmp_path):
    cert, key = make_certificate(tmp_path)
    tls = ("--tls-cert", cert, "--tls-key", key)
    with serving(*tls, first=r"^starter on \w+ at (https://127\.0\.0\.1:\d+) ") as url:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(f"{url}/health", timeout=20) as answer:
            assert json.loads(answer.read())["status"] == "ok"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "edge_mllm", "serve", "--port", str(port), "-q"]
    with subprocess.Popen(command, env=command_environment(), stderr=subprocess.PIPE) as process:
        while process.poll() is None and not listens(port):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1] == b""
    done = run_command("serve", "--quiet", "--host", "no.such.host.invalid")
    assert done.code == 1 and len(done.errors) == 1


def test_other_machines_are_told_of():
    """Who opens the server to a network without a key is told so."""
    told = r"^edge-mllm: every machine of this network can ask; --api-key"
    with serving("--host", "0.0.0.0", first=f"{told}( )?"):
        pass
