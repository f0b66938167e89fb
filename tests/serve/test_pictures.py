"""Pictures from files and addresses: only where it was allowed, whatever links, redirects and names say."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import threading
import time
import urllib.parse

import pytest
from serve.server_process import LABEL, SIGN, asking, error_of, serving

from edge_mllm.errors import ImageError
from edge_mllm.serve.pictures import fetch as fetching
from edge_mllm.serve.pictures.fetch import fetch

SECRET = b"not to be seen"


class Site(http.server.BaseHTTPRequestHandler):
    """Pictures, redirects, and hosts that take their time."""

    asked: list[str] = []  # noqa: RUF012  (of all its instances)

    def do_GET(self):
        self.asked.append(self.path)
        parts = urllib.parse.urlsplit(self.path)
        if parts.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", urllib.parse.parse_qs(parts.query)["to"][0])
            self.end_headers()
        elif parts.path == "/drip":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.1)
        elif parts.path == "/large":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bytes(3 << 20))
        elif parts.path == "/label.png":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(LABEL.read_bytes())
        else:
            self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A directory that is allowed, beside one that is not."""
    top = tmp_path_factory.mktemp("files")
    allowed, outside = top / "allowed", top / "allowed-not"
    for folder in (allowed, outside, allowed / "deep"):
        folder.mkdir()
    (allowed / "a b.png").write_bytes(LABEL.read_bytes())
    (allowed / "deep" / "sign.png").write_bytes(SIGN.read_bytes())
    (outside / "secret.png").write_bytes(LABEL.read_bytes())
    (allowed / "note.txt").write_bytes(SECRET)
    (allowed / "link.png").symlink_to(outside / "secret.png")
    (allowed / "inside.png").symlink_to(allowed / "a b.png")
    (allowed / "folder").symlink_to(outside)
    (allowed / "loop.png").symlink_to(allowed / "loop.png")
    (allowed / "device.png").symlink_to("/dev/zero")
    os.mkfifo(allowed / "pipe.png")
    (top / "alias").symlink_to(allowed)
    return top


@pytest.fixture(scope="module")
def opened(shared, site):
    with serving(
        "--allow-files",
        shared / "alias",
        "--allow-urls",
        "127.0.0.1",
        "--allow-urls",
        "localhost",
        "--max-body",
        "2MB",
        "--read-timeout",
        "2",
    ) as running:
        yield running


def describe(served, url):
    return served.post("/v1/chat/completions", asking("What does it say?", url))


def refused(served, url, code):
    found = error_of(describe(served, url), 400)
    assert found["code"] == code and found["param"] == "messages[0].content[0].image_url", found
    assert SECRET.decode() not in found["message"]
    return found["message"]


def test_files_of_an_allowed_directory(opened, shared):
    for name in ("allowed/a%20b.png", "alias/a%20b.png", "allowed/inside.png", "allowed/deep/../a%20b.png"):
        found = describe(opened, f"file://{shared}/{name}")
        assert found.status_code == 200 and "Coffee" in found.text
    assert "TRAM" in describe(opened, f"file://localhost{shared}/allowed/deep/sign.png").text


@pytest.mark.parametrize(
    "name",
    [
        "allowed-not/secret.png",
        "allowed/../allowed-not/secret.png",
        "allowed/%2e%2e/allowed-not/secret.png",
        "allowed/link.png",
        "allowed/folder/secret.png",
        "allowed/loop.png",
        "allowed/device.png",
        "allowed/pipe.png",
        "allowed/deep",
        "allowed/none.png",
        "allowed/a%20b.png%00.txt",
        "allowed/" + "x" * 300,
    ],
)
def test_other_files_are_like_none(opened, shared, name):
    messages = {
        refused(opened, f"file://{shared}/{name}", "file_not_found"),
        refused(opened, f"file://{shared}/nothing.png", "file_not_found"),
    }
    assert len(messages) == 1


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "file:///proc/self/environ",
        "file:relative.png",
        "file://evil.example/x.png",
        "FILE:///etc/passwd",
        "file:////etc/passwd",
    ],
)
def test_files_elsewhere(opened, url):
    refused(opened, url, "file_not_found")


def test_a_text_in_an_allowed_directory_is_not_shown(opened, shared):
    refused(opened, f"file://{shared}/allowed/note.txt", "invalid_image")


def test_nothing_is_read_or_fetched_by_itself(served, shared, site):
    Site.asked.clear()
    refused(served, f"file://{shared}/allowed/a%20b.png", "files_not_allowed")
    refused(served, f"http://127.0.0.1:{site}/label.png", "urls_not_allowed")
    assert not Site.asked


def test_an_allowed_address(opened, site):
    assert "Coffee" in describe(opened, f"http://127.0.0.1:{site}/label.png").text
    redirect = f"http://127.0.0.1:{site}/redirect?to="
    assert "Coffee" in describe(opened, redirect + "/label.png").text
    assert "Coffee" in describe(opened, redirect + f"http://127.0.0.1:{site}/label.png").text


def test_a_name_of_this_machine_is_refused_even_where_it_was_allowed(opened, site):
    Site.asked.clear()
    assert "this machine or a private network" in refused(opened, f"http://localhost:{site}/label.png", "cannot_fetch")
    redirect = f"http://127.0.0.1:{site}/redirect?to="
    refused(opened, redirect + f"http://localhost:{site}/label.png", "cannot_fetch")
    assert "/label.png" not in Site.asked


@pytest.mark.parametrize(
    "to",
    [
        "http://[::1]:{port}/label.png",
        "http://127.1:{port}/label.png",
        "http://2130706433:{port}/label.png",
        "http://127.0.0.2:{port}/label.png",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://169.254.169.254/latest",
        "http://user:word@127.0.0.1:{port}/label.png",
        "//evil.example/x",
        "http://127.0.0.1:99999/",
    ],
)
def test_redirects_and_addresses_go_nowhere_else(opened, site, to):
    url = to.format(port=site)
    Site.asked.clear()
    refused(opened, f"http://127.0.0.1:{site}/redirect?to=" + urllib.parse.quote(url), "cannot_fetch")
    assert [path.split("?")[0] for path in Site.asked] == ["/redirect"]


def test_hosts_that_take_too_much(opened, site):
    base = f"http://127.0.0.1:{site}"
    assert "status 404" in refused(opened, f"{base}/none.png", "cannot_fetch")
    assert "more than 2000000 bytes" in refused(opened, f"{base}/large", "cannot_fetch")
    assert "in time" in refused(opened, f"{base}/drip", "cannot_fetch")  # it never ends by itself
    loop = f"{base}/redirect?to=" + urllib.parse.quote(
        "/redirect?to=" + urllib.parse.quote("/redirect?to=" + urllib.parse.quote("/redirect?to=/label.png"))
    )
    assert "redirects more than 3 times" in refused(opened, loop, "cannot_fetch")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "in time" in refused(opened, f"http://127.0.0.1:{silent.getsockname()[1]}/x", "cannot_fetch")


@pytest.mark.parametrize(
    ("addresses", "allowed"),
    [
        (["93.184.216.34"], True),
        (["127.0.0.1"], False),
        (["93.184.216.34", "10.0.0.7"], False),
        (["169.254.169.254"], False),
        (["100.64.0.1"], False),
        (["0.0.0.0"], False),
        (["224.0.0.1"], False),
        (["::1"], False),
        (["fe80::1%eth0"], False),
        (["fd00::1"], False),
        (["::ffff:127.0.0.1"], False),
        (["2002:7f00:1::"], False),
        (["64:ff9b::7f00:1"], False),
        (["2606:2800:220:1:248:1893:25c8:1946"], True),
    ],
)  # fmt: skip
def test_every_address_of_a_name_is_looked_at(monkeypatch, addresses, allowed):
    """A name is resolved once, and the connection goes to the address that was looked at."""
    tried = []
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]
    monkeypatch.setattr(fetching.socket, "getaddrinfo", lambda *_, **__: answers)

    def connect(address, _timeout):
        tried.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(fetching.socket, "create_connection", connect)
    with pytest.raises(ImageError, match="ConnectionRefusedError" if allowed else "private network"):
        fetch("http://pictures.example/x.png", {"pictures.example"}, 1000, 5.0)
    assert tried == (addresses[:1] if allowed else [])
