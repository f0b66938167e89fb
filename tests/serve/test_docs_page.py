"""What docs/serve.md tells a reader to type to a server works as it stands there, but for the port."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from page_blocks import ROOT, blocks
from serve.server_process import LABEL, serving

REASON = "asks a server, as tests/serve/test_docs_page.py does"
BLOCKS = [block for block in blocks(ROOT / "docs" / "serve.md") if block.reason == REASON]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("reader")
    shutil.copy(LABEL, made)
    return made


@pytest.fixture(scope="module")
def port():
    with serving("--name", "smolvlm-500m") as running:
        yield running.address[1]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_a_block(block, folder, port):
    text = block.text.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    assert text != block.text
    words = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [*words, text], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Coffee" in done.stdout and "error" not in done.stdout


def test_there_are_blocks():
    assert {block.language for block in BLOCKS} == {"sh", "python"} and len(BLOCKS) == 3
