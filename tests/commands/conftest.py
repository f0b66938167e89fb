"""Models that the tests of several commands share, made as a user would make them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands.command_line import ROOT, run_command
from commands.hub_shop import Shop, stock
from shared_artefacts import made_once

CHECKPOINT = ROOT / "starter" / "checkpoint"


@pytest.fixture(scope="session")
def exported_starter(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A bundle of the starter checkpoint with prompt weights, and mmproj.gguf for the decoder.gguf that ships."""
    return made_once(tmp_path_factory, worker_id, "made.edge", _export)


@pytest.fixture(scope="session")
def published_starter(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """ONNX files of the starter checkpoint, as others publish them: all in float32, the decoder in 4 bits too."""
    return made_once(tmp_path_factory, worker_id, "starter-onnx", _publish)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory, exported_starter: Path, published_starter: Path) -> Path:
    """Repositories of a hub, see :func:`commands.hub_shop.stock`."""
    return stock(tmp_path_factory.mktemp("repositories"), exported_starter, published_starter)


@pytest.fixture
def shop(shelf: Path, tmp_path: Path) -> Iterator[Shop]:
    """A hub, and a user's machine with caches of its own."""
    made = Shop(shelf, tmp_path)
    with made.server:
        yield made


def _export(out: Path) -> None:
    parts = ("--format", "onnx", "--vision", "fp32", "--mmproj", "--prompt-weights", "int8")
    done = run_command("export", CHECKPOINT, "-o", out, *parts, "--no-verify", "--no-calibration")
    assert done.code == 0, done.stderr


def _publish(out: Path) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from tiny_published import make_published

    make_published(CHECKPOINT, out)
    decoder = out / "onnx" / "decoder_model_merged.onnx"
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)
    small = MatMulNBitsQuantizer(onnx.load(decoder), block_size=32, is_symmetric=True)
    small.process()
    small.model.save_model_to_file(str(decoder.with_name("decoder_model_merged_q4.onnx")))
