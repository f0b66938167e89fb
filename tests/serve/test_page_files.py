"""The files of the page, as any client gets them."""

from __future__ import annotations

import re

import httpx
import pytest


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page/main.js", "text/javascript; charset=utf-8"),
        ("/page/style.css", "text/css; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
    ],
)
def test_files_are_sent_with_their_type_and_a_strict_policy(served, path, kind):
    found = served.get(path)
    assert (found.status_code, found.headers["content-type"]) == (200, kind)
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert found.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"(?:src|href|url|fetch|import)\W+https?://", found.text)


@pytest.mark.parametrize("name", ["", "nothing.js", "..%2ffront.py", "%2e%2e%2ffront.py", "%00", "a/b"])
def test_nothing_else_is_sent(served, name):
    found = httpx.request("GET", f"{served.url}/page/{name}", trust_env=False)
    assert found.status_code == 404 and "import" not in found.text
