"""A hub on this machine with the starter in each layout that others publish, and a user's machine beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

from commands.command_line import STARTER, Ended, run_command
from hub_server import HubServer, Repository


def stock(place: Path, exported: Path, published: Path) -> Path:
    """Repositories: a bundle, a GGUF pair, ONNX files beside a checkpoint, a checkpoint, and nothing usable.

    Args:
        place: An empty folder.
        exported: A bundle with mmproj.gguf.
        published: ONNX files in the layout of transformers.js.
    """
    shutil.copytree(STARTER, place / "bundle")
    pair = place / "gguf"
    pair.mkdir()
    shutil.copy(STARTER / "decoder.gguf", pair / "tiny-Q4_0.gguf")
    shutil.copy(exported / "mmproj.gguf", pair / "mmproj-tiny-f16.gguf")
    (pair / "tiny-F16.gguf").write_bytes(b"another type, which is not fetched")
    shutil.copytree(published, place / "onnx")
    (place / "onnx" / "model.safetensors").write_bytes(b"weights that are not fetched")
    (place / "checkpoint").mkdir()
    (place / "checkpoint" / "config.json").write_text("{}")
    (place / "checkpoint" / "model.safetensors").write_bytes(b"x")
    (place / "nothing").mkdir()
    (place / "nothing" / "weights.bin").write_bytes(b"x")
    return place


class Shop:
    """A hub, and a user's machine with caches of its own."""

    def __init__(self, shelf: Path, home: Path) -> None:
        names = ("bundle", "gguf", "onnx", "checkpoint", "nothing")
        self.server = HubServer(**{name: Repository(shelf / name) for name in names})
        self._environment = {
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(home / "hf"),
            "HF_HUB_CACHE": str(home / "hf" / "hub"),
            "EDGE_MLLM_CACHE": str(home / "cache"),
            "HF_ENDPOINT": self.server.url,
        }

    def type(self, *args: object, stdin: str = "", **more: str) -> Ended:
        """Type a command on that machine, with further environment variables."""
        return run_command(*args, stdin=stdin, env=self._environment | more)
