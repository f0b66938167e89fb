"""Who is let in: names, origins, keys; and pages of other sites are not."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from pathlib import Path

import httpx
import openai
import pytest
from commands.command_line import run_command
from serve.server_process import LABEL, asking, error_of, serving
from tls_certificate import make_certificate

KEY = "secret-7"
ORIGIN = "https://friend.example"


@pytest.fixture(scope="module")
def guarded():
    options = ("--allow-host", "Box.example", "--allow-origin", ORIGIN, "--name", "eyes")
    with serving(*options, env={"EDGE_MLLM_API_KEY": KEY}) as running:
        yield running


def ask(served, path="/v1/models", method="GET", **headers):
    """A request with exactly these headers; Host too."""
    connection = http.client.HTTPConnection(*served.address, timeout=20)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    found = httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
    connection.close()
    return found


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:1", "LOCALHOST:80", "[::1]:9", "192.168.0.7", "a.localhost", "localhost."]
)
def test_addresses_and_localhost_are_names_of_the_server(served, host):
    assert ask(served, Host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "[::1",
        "0x7f.1",
        "local host",
    ],
)
def test_other_names_are_not(served, host):
    """What a browser sends after a name was pointed at this machine (DNS rebinding)."""
    assert error_of(ask(served, Host=host), 403)["code"] == "host_not_allowed"
    assert error_of(ask(served, "/health", Host=host), 403)
    assert error_of(ask(served, "/v1/chat/completions", "POST", Host=host, Content_Type="application/json"), 403)


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://127.0.0.1:1", "null", "http://localhost.evil.example", "https://127.0.0.1"],
)
def test_pages_of_other_sites_may_not_ask(served, origin):
    for path, method in (("/v1/chat/completions", "POST"), ("/v1/models", "GET"), ("/v1/chat/completions", "OPTIONS")):
        refused = ask(served, path, method, Host="127.0.0.1", Origin=origin, Content_Type="application/json")
        assert error_of(refused, 403)["code"] == "origin_not_allowed"
        assert not [name for name in refused.headers if name.startswith("access-control")]


def test_the_server_s_own_page_may(served):
    host, port = served.address
    assert ask(served, Host=f"{host}:{port}", Origin=f"http://{host}:{port}").status_code == 200


def test_an_allowed_origin_and_name(guarded):
    allowed = {"Host": "box.example:80", "Authorization": f"Bearer {KEY}", "Origin": ORIGIN}
    found = ask(guarded, **allowed)
    assert found.status_code == 200 and found.headers["access-control-allow-origin"] == ORIGIN
    preflight = ask(
        guarded, "/v1/chat/completions", "OPTIONS", Host="box.example", Origin=ORIGIN,
        Access_Control_Request_Method="POST", Access_Control_Request_Headers="authorization,content-type",
    )  # fmt: skip
    assert preflight.status_code == 200 and preflight.headers["access-control-allow-origin"] == ORIGIN
    assert error_of(ask(guarded, **allowed | {"Origin": "https://evil.example"}), 403)


@pytest.mark.parametrize(
    "given",
    [None, "", "Bearer", "Bearer ", "Bearer secret-8", "Bearer secret-77", f"Basic {KEY}", KEY, "Bearer sécret"],
)
def test_a_key_is_asked_for(guarded, given):
    headers = {"Host": "127.0.0.1"} if given is None else {"Host": "127.0.0.1", "Authorization": given}
    for path in ("/v1/models", "/metrics", "/api/tags", "/openapi.json", "/v1/nothing"):
        refused = ask(guarded, path, **headers)
        assert error_of(refused, 401)["code"] == "invalid_api_key" and refused.headers["www-authenticate"] == "Bearer"
    assert ask(guarded, "/health", **headers).status_code == 200 == ask(guarded, "/", **headers).status_code


def test_clients_with_the_key(guarded):
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=KEY) as client:
        assert [entry.id for entry in client.models.list()] == ["starter", "eyes"]
        assert client.chat.completions.create(model="eyes", **asking("What does it say?", LABEL), max_tokens=4).choices
    with (
        openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="other") as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def test_no_process_list_shows_the_key_of_the_environment(guarded):
    assert KEY not in Path(f"/proc/{guarded.process.pid}/cmdline").read_text()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


def test_https(certificate):
    cert, key = certificate
    with serving("--tls-cert", cert, "--tls-key", key, "--api-key", KEY) as running:
        assert running.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(cert))
        headers = {"Authorization": f"Bearer {KEY}"}
        assert (
            httpx.get(f"{running.url}/v1/models", verify=context, headers=headers, trust_env=False).status_code == 200
        )
        origin = {"Origin": running.url, **headers}
        assert httpx.get(f"{running.url}/v1/models", verify=context, headers=origin, trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--tls-cert", "none.pem"), "--tls-cert and --tls-key go together"),
        (("--tls-cert", "none.pem", "--tls-key", "none.pem"), "there is no file 'none.pem'"),
        (("--allow-files", "nowhere"), "--allow-files names 'nowhere', which is no directory"),
        (("--allow-urls", "https://example.com/x"), "--allow-urls takes the name of a host"),
        (("--allow-origin", "example.com"), "--allow-origin takes an origin"),
        (("--api-key", ""), "--api-key must be printable ASCII text"),
        (("--host", "no.such.name.invalid"), "cannot listen on no.such.name.invalid"),
        (("--max-body", "much"), "a size is a number with a unit"),
    ],
)  # fmt: skip
def test_settings_that_make_no_server(words, told):
    done = run_command("serve", *words)
    assert (done.code, done.stdout, len(done.errors)) == (1, "", 1) and told in done.errors[0]


def test_a_port_that_is_taken(served):
    done = run_command("serve", "--port", served.address[1])
    assert done.code == 1 and f"cannot listen on 127.0.0.1 port {served.address[1]}" in done.errors[0]


def test_metrics_count(guarded):
    headers = {"Authorization": f"Bearer {KEY}"}
    guarded.post("/v1/chat/completions", asking("What does it say?", LABEL), headers=headers)
    text = guarded.get("/metrics", headers=headers).text
    assert 'edge_mllm_requests_total{route="/v1/chat/completions",status="200"}' in text
    values = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[0] != "#"}
    assert values['edge_mllm_tokens_total{kind="image"}'] >= 180 and values["edge_mllm_waiting_requests"] == 0
    assert values['edge_mllm_ttft_seconds_bucket{le="+Inf"}'] == values["edge_mllm_ttft_seconds_count"] > 0
    assert time.time() - values["edge_mllm_start_time_seconds"] < 3600


def test_the_description_is_json(served):
    described = served.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1") and {"/v1/chat/completions", "/api/chat"} <= set(described["paths"])
    assert "max_ttft" in described["components"]["schemas"]["ChatRequest"]["properties"]
    json.dumps(described)
