"""What commands leave behind and whom they call: nothing in HOME, and nobody that was not asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands.command_line import DEMO, command_environment
from hub_server import HubServer, Repository

_OWN = ("CI", "ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "EDGE_MLLM_CACHE", "HF_HOME")
"""What a test run or this package sets, and a user does not."""


def run_as_stranger(
    home: Path, hub: HubServer, *arguments: object, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """A command of somebody with an empty home, whose hub is the server."""
    kept = {name: value for name, value in command_environment().items() if name not in _OWN}
    kept = {name: value for name, value in kept.items() if not name.startswith("XDG_")}
    environment = kept | {"HOME": str(home), "HF_ENDPOINT": hub.url, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "edge_mllm", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment, check=False)


def left(home: Path) -> list[str]:
    """Files below a folder."""
    return sorted(str(path.relative_to(home)) for path in home.rglob("*"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "-i", DEMO / "label.png", "--engine", "onnx", "--max-new-tokens", "3", "What does it say?"),
        ("run", "-i", DEMO / "sign.png", "--engine", "gguf", "--max-new-tokens", "3", "What does it say?"),
        ("chat", "--max-new-tokens", "2"),
        ("inspect",),
        ("models",),
        ("plan",),
        ("doctor",),
    ],
    ids=lambda arguments: " ".join(map(str, arguments[:4:3])),
)
def test_home_stays_empty_and_nobody_is_called(tmp_path: Path, arguments: tuple[object, ...]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with HubServer() as hub:
        done = run_as_stranger(home, hub, *arguments, stdin="Hello\n")
        assert done.returncode == 0, done.stderr
        assert hub.requests == []
    assert left(home) == []


def test_a_model_of_the_hub_is_asked_for_and_nothing_else(tmp_path: Path) -> None:
    """huggingface_hub would also ask for what it calls agent harnesses."""
    home, model = tmp_path / "home", tmp_path / "model"
    home.mkdir()
    model.mkdir()
    (model / "config.json").write_text('{"architectures": ["NoModelAtAll"]}')
    with HubServer(tiny=Repository(model)) as hub:
        done = run_as_stranger(home, hub, "plan", "org/tiny")
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
        asked = [path.split("?")[0] for _, path, _ in hub.requests]
    assert asked
    assert [path for path in asked if not path.startswith(("/api/models/org/tiny", "/org/tiny/resolve/"))] == []
    assert not os.path.lexists(home / ".cache" / "Microsoft")
