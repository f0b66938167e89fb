"""A server as a user starts it, in a process of its own, and what its clients hold in their hands."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from commands.command_line import DEMO, command_environment
from PIL import Image

LABEL, SIGN = DEMO / "label.png", DEMO / "sign.png"
"""label.png says Coffee, $4.60; sign.png says TRAM 18."""
QUESTION = "What does it say?"


@dataclass
class Served:
    """A server that runs."""

    url: str
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    """What it wrote to standard error."""

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """Send a JSON body."""
        return httpx.post(self.url + path, json=body, timeout=60, trust_env=False, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Ask for a path."""
        return httpx.get(self.url + path, timeout=60, trust_env=False, **options)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self.url.split("://")[1].rsplit(":", 1)
        return host, int(port)

    @property
    def resident_bytes(self) -> int:
        """Memory of the process now."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", text)
        assert found is not None
        return int(found[1]) * 1024


@contextlib.contextmanager
def serving(*args: object, env: dict[str, str] | None = None, slow: bool = False) -> Iterator[Served]:
    """A server on a port of its own, until the block ends; it must have said nothing but its address.

    Every token of a ``slow`` one takes 4 ms more, so that what happens during an answer has time to happen.
    """
    program = ["-P", str(Path(__file__).with_name("slow_edge_mllm.py"))] if slow else ["-m", "edge_mllm"]
    command = [sys.executable, *program, "serve", "--port", "0", *map(str, args)]
    environment = command_environment() | (env or {})
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r" at (https?://\S+) ", line)
            assert found, line + process.stderr.read()
            served = Served(found[1], process)
            reader = threading.Thread(target=lambda: served.lines.extend(process.stderr or ()), daemon=True)
            reader.start()
            yield served
        finally:
            process.terminate()
            process.wait(30)
    assert process.returncode == -signal.SIGTERM, served.lines
    assert not [line for line in served.lines if "Traceback" in line], served.lines


def data_url(picture: Path | bytes) -> str:
    """A picture as it stands in a request."""
    data = picture if isinstance(picture, bytes) else picture.read_bytes()
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def png(*, seed: int, width: int, height: int) -> bytes:
    """A picture that no other test sends: squares of colours, drawn from a seed."""
    colours = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def asking(text: str = QUESTION, *pictures: Path | bytes | str, **options: Any) -> dict[str, Any]:
    """A body of a chat completion; pictures are files, their bytes, or URLs."""
    urls = [each if isinstance(each, str) else data_url(each) for each in pictures]
    content = [*({"type": "image_url", "image_url": {"url": url}} for url in urls), {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": content}], **options}


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of OpenAI's form that a response carries."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert set(document) == {"error"} and set(document["error"]) == {"message", "type", "param", "code"}
    assert document["error"]["message"]
    found: dict[str, Any] = document["error"]
    return found


def events(response: httpx.Response) -> Iterator[Any]:
    """The documents of a stream of server-sent events."""
    for line in response.iter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))
