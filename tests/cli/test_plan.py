"""The plan command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_mllm.answer.limits import parse_bytes
from edge_mllm.cli.main import app
from edge_mllm.errors import SettingError

RUNNER = CliRunner()


def test_a_bundle_is_planned_as_json(tiny_bundle: Path) -> None:
    done = RUNNER.invoke(app, ["plan", str(tiny_bundle), "--device", "rpi5", "--json", "--memory", "10KB"])
    assert done.exit_code == 1, done.output  # nothing fits
    found = json.loads(done.stdout)
    parts = json.loads((tiny_bundle / "bundle.json").read_text())["parts"]
    gguf = next(cost for cost in found["costs"] if cost["engine"] == "gguf")
    assert gguf["decoder"]["file_bytes"] == (tiny_bundle / "decoder.gguf").stat().st_size
    assert gguf["disk_bytes"] == parts["decoder_gguf"]["bytes"] + parts["vision"]["bytes"]
    assert gguf["fits"] is found["fits"] is False
    assert found["device"]["estimated"] is True
    assert found["pictures"][0]["width"] == 1024 and found["pictures"][0]["tokens"] > 0


def test_the_table_names_device_tokens_and_recipes(tiny_smolvlm: Path) -> None:
    done = RUNNER.invoke(app, ["plan", str(tiny_smolvlm), "--device", "rpi5", "--memory", "8GB"])
    assert done.exit_code == 0, done.output
    assert "Raspberry Pi 5" in done.stdout and "estimated" in done.stdout
    assert "q4_k_m" in done.stdout and "int4_b32" in done.stdout and "fits" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--memory", "plenty"], "a size is a number with a unit"),
        (["--device", "toaster"], "no device 'toaster'"),
        (["shape:unheard-of"], "no such shape"),
        (["--image-size", "large"], "WIDTHxHEIGHT"),
    ],
)
def test_mistakes_end_in_one_line(arguments: list[str], said: str) -> None:
    done = RUNNER.invoke(app, ["plan", *arguments])
    assert done.exit_code == 1
    assert said in done.stderr and "Traceback" not in done.stderr


def test_sizes_are_read_as_people_write_them() -> None:
    assert parse_bytes("2GB") == 2 * 10**9
    assert parse_bytes("1.5 GiB") == 3 << 29
    assert parse_bytes("300m") == 3 * 10**8
    assert parse_bytes("12") == 12
    with pytest.raises(SettingError):
        parse_bytes("2 TB or so")
