import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from edge_mllm.cli.main import app


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "a b.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    return path


def talk(bundle: Path, lines: list[str], *args: object) -> tuple[int, str, list[str]]:
    command = [sys.executable, "-m", "edge_mllm", "chat", "-m", str(bundle), "--threads", "1", *map(str, args)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(
        [*command, "--max-new-tokens", "5"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr.splitlines()


def test_turns_reuse_what_was_computed(tiny_bundle, photo):
    code, out, costs = talk(tiny_bundle, [f"/image '{photo}'", "What is this?", "And why?", "/quit", "never said"])
    assert code == 0
    assert out.strip()
    assert len(costs) == 2
    assert "52 image tokens (13 tiles)" in costs[0]
    assert "reused" in costs[1]


def test_errors_do_not_end_the_conversation(tiny_bundle, photo):
    lines = ["/image /nowhere.png", "/help", "word " * 5000, "Hello"]
    code, _, err = talk(tiny_bundle, lines)
    assert code == 0
    assert err[0] == "edge-mllm: cannot use picture '/nowhere.png': no such file"
    assert "/quit" in err[5]
    assert "but the context holds" in err[6]
    assert "5 new" in err[7]


def test_missing_model_is_one_line():
    result = CliRunner().invoke(app, ["chat", "-m", "/nowhere.edge"])
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ["edge-mllm: no model at '/nowhere.edge': no such file or directory"]


def test_conversation_goes_on_in_a_new_process(tiny_bundle, photo, tmp_path):
    file = tmp_path / "chat.bin"
    code, _, costs = talk(tiny_bundle, [f"/image '{photo}'", "What is this?"], "--chat-file", file)
    assert (code, len(costs)) == (0, 1)
    code, _, costs = talk(tiny_bundle, ["And why?"], "--chat-file", file, "--low-memory")
    assert code == 0
    assert "52 image tokens (13 tiles)" in costs[0]
    assert "reused" in costs[0]
    file.write_bytes(file.read_bytes()[:-1])
    code, out, err = talk(tiny_bundle, ["And why?"], "--chat-file", file)
    assert (code, out) == (1, "")
    assert err == [f"edge-mllm: cannot use the saved chat '{file}': it is damaged"]
