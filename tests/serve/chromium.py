"""Debian's Chromium with a profile of its own, and what a person does in it that has no name in Playwright."""

from __future__ import annotations

import base64
import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
if shutil.which("chromium") is None:
    pytest.skip("chromium is not installed", allow_module_level=True)

_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
)  # fmt: skip
_GATE = """
const Decoder = TextDecoderStream;
const waiting = [];
let last = null;
window.passUntil = (event) => { last = event; waiting.splice(0).forEach((go) => go()); };
const gate = { async transform(text, out) {
  for (const event of text.split(/(?<=\\n\\n)/)) {
    while (last === null) { await new Promise((go) => waiting.push(go)); }
    out.enqueue(event);
    last = event.includes(last) ? null : last;
  }
} };
window.TextDecoderStream = class {
  constructor() {
    const decoder = new Decoder();
    this.writable = decoder.writable;
    this.readable = decoder.readable.pipeThrough(new TransformStream(gate));
  }
};
"""
"""A page sees its streams only as far as a test lets it, as if the model were slow."""
_TRANSFER = """([data, name, type]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  return transfer;
}"""


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[sync_api.BrowserContext]:
    """A browser with a camera that shows a test picture."""
    with sync_api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=shutil.which("chromium"), args=list(_FLAGS), headless=True
        )
        context.set_default_timeout(10_000)
        sync_api.expect.set_options(timeout=10_000)
        yield context
        context.close()


class Seen:
    """A page, with what went wrong on it and where it asked."""

    def __init__(self, context: sync_api.BrowserContext, url: str, *, gated: bool = False) -> None:
        self.page, self.errors, self.hosts = context.new_page(), list[str](), set[str]()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda told: self.errors.append(told.text) if told.type == "error" else None)
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        if gated:
            self.page.add_init_script(_GATE)
        self.page.goto(url)


def hand_over(page: sync_api.Page, picture: Path | bytes, how: str, kind: str = "image/png") -> None:
    """``drop`` a picture on the frame or ``paste`` it."""
    data = picture if isinstance(picture, bytes) else picture.read_bytes()
    transfer = page.evaluate_handle(_TRANSFER, [base64.b64encode(data).decode(), "picture", kind])
    if how == "drop":
        page.dispatch_event("#frame", "drop", {"dataTransfer": transfer})
    else:
        paste = (
            "(data) => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, cancelable: true }))"
        )
        page.evaluate(paste, transfer)


def pass_until(page: sync_api.Page, last: str) -> None:
    """Let a gated page see its stream up to an event that contains a text."""
    page.evaluate("(last) => window.passUntil(last)", last)
