"""Shared fixtures: tiny checkpoints are made once a session and never written to by a test (copy them first)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edge_mllm import Model

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach the network; hub tests name a local endpoint
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models are slower on two threads, far slower on a busy machine


@pytest.fixture(autouse=True)
def root_logging() -> Iterator[None]:
    """A command run inside a test process sets up logging for its own process; every test begins as Python does."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    yield
    root.setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def tiny_smolvlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Idefics3ForConditionalGeneration, float32, separate output head, one safetensors file, 32 px tiles."""
    from tiny_models import make_tiny_smolvlm

    return make_tiny_smolvlm(tmp_path_factory.mktemp("tiny") / "tiny-smolvlm")


@pytest.fixture(scope="session")
def tiny_smolvlm_tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in bfloat16, head tied to the embedding, weights in two shards, sizes that suit K-quants."""
    from tiny_models import make_tiny_smolvlm

    return make_tiny_smolvlm(
        tmp_path_factory.mktemp("tiny") / "tiny-smolvlm-tied",
        seed=1,
        tied=True,
        shards=2,
        dtype="bfloat16",
        text={"hidden_size": 256, "intermediate_size": 512, "head_dim": 64},
    )


@pytest.fixture(scope="session")
def tiny_smolvlm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolVLMForConditionalGeneration (the SmolVLM2 classes)."""
    from tiny_models import make_tiny_smolvlm

    return make_tiny_smolvlm(tmp_path_factory.mktemp("tiny") / "tiny-smolvlm2", seed=2, smolvlm2=True)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_smolvlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle of tiny_smolvlm with both decoders and the tower in 32-bit floats, not verified."""
    from edge_mllm_export import ExportOptions, export_bundle

    out = tmp_path_factory.mktemp("bundle") / "tiny.edge"
    export_bundle(str(tiny_smolvlm), out, ExportOptions(format="both", quant="f32", vision="fp32", verify=False))
    return out


@pytest.fixture(params=["onnx", "gguf"])
def loading(tiny_bundle: Path, request: pytest.FixtureRequest) -> Callable[..., Model]:
    """Loads tiny_bundle on one thread with a cache in float32, and with the options that are given."""
    import edge_mllm

    settings = {"engine": request.param, "threads": 1, "kv_type": "f32", "check_hashes": False}
    return lambda **more: edge_mllm.load(tiny_bundle, **{**settings, **more})
