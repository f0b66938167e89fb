"""A headless Chromium at a phone's size, by the W3C WebDriver protocol over plain HTTP."""

from __future__ import annotations

import base64
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage")


class Browser:
    """One window; close it."""

    def __init__(self, *, dark: bool = False, width: int = 412, height: int = 915) -> None:
        self._driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        assert self._driver.stdout is not None
        line = next(line for line in self._driver.stdout if "successfully on port" in line)
        self._base = f"http://127.0.0.1:{line.split('on port')[1].split('.')[0].strip()}/session"
        scheme = ["--force-dark-mode"] if dark else []
        options = {
            "args": [*_FLAGS, *scheme, f"--window-size={width},{height}"],
            "mobileEmulation": {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0}},
        }
        wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
        self._base += f"/{self._post('', wanted)['sessionId']}"

    def open(self, address: str) -> None:
        self._post("/url", {"url": address})

    def type(self, selector: str, text: str) -> None:
        """Type into an element, or give a file chooser a path."""
        self._post(f"/element/{self._find(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        self._post(f"/element/{self._find(selector)}/click", {})

    def run(self, script: str) -> Any:
        """What a script returns."""
        return self._post("/execute/sync", {"script": script, "args": []})

    def wait(self, script: str, seconds: float = 30) -> Any:
        """What a script returns, as soon as that counts as true."""
        return _until(lambda: self.run(f"return {script}"), seconds, script)

    def screenshot(self, file: Path) -> None:
        with urllib.request.urlopen(f"{self._base}/screenshot") as reply:
            file.write_bytes(base64.b64decode(json.load(reply)["value"]))

    def close(self) -> None:
        try:
            request = urllib.request.Request(self._base, method="DELETE")
            urllib.request.urlopen(request).close()
        finally:
            self._driver.terminate()
            self._driver.wait(10)
            assert self._driver.stdout is not None
            self._driver.stdout.close()

    def _find(self, selector: str) -> str:
        found: str = self._post("/element", {"using": "css selector", "value": selector})[_ELEMENT]
        return found

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._base + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)["value"]


def _until(ask: Callable[[], Any], seconds: float, what: str) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = ask()
        if found:
            return found
        time.sleep(0.1)
    raise TimeoutError(what)
