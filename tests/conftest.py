"""Shared fixtures: tiny checkpoints are made once a session and never written to by a test (copy them first)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import family_makers
import pytest
from quick_exports import quick_exports
from run_order import pytest_addoption, pytest_collection_modifyitems, pytest_terminal_summary  # noqa: F401  (hooks)
from shared_artefacts import made_once, shared_folder

if TYPE_CHECKING:
    from edge_mllm import Model

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach the network; hub tests name a local endpoint
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models are slower on two threads, far slower on a busy machine
# llama.cpp's threads wait for each other after every operation of a graph. As they do it by default, by asking again
# and again, one that has no core keeps the others busy for whole slices of time: on two cores, two workers' do little
# else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(autouse=True)
def root_logging() -> Iterator[None]:
    """A command run inside a test process sets up logging for its own process; every test begins as Python does."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    yield
    root.setLevel(logging.WARNING)


@pytest.fixture(scope="session", autouse=True)
def exports_are_quick(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[None]:
    """Towers are traced once for all workers, and the builder's process finds its modules imported."""
    with quick_exports(shared_folder(tmp_path_factory, worker_id) / "traces"):
        yield


@pytest.fixture(scope="session", autouse=True)
def tiny_checkpoints_are_shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> None:
    """A family's is made by the first test of all workers that needs it, and copied to the others."""
    family_makers.shared = shared_folder(tmp_path_factory, worker_id) / "families"
    family_makers.shared.mkdir(exist_ok=True)


@pytest.fixture(scope="session")
def tiny_smolvlm(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Idefics3ForConditionalGeneration, float32, separate output head, one safetensors file, 32 px tiles."""
    from tiny_models import make_tiny_smolvlm

    return made_once(tmp_path_factory, worker_id, "tiny-smolvlm", make_tiny_smolvlm)


@pytest.fixture(scope="session")
def tiny_smolvlm_tied(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The same in bfloat16, head tied to the embedding, weights in two shards, sizes that suit K-quants."""
    from tiny_models import make_tiny_smolvlm

    def make(out: Path) -> None:
        text = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
        make_tiny_smolvlm(out, seed=1, tied=True, shards=2, dtype="bfloat16", text=text)

    return made_once(tmp_path_factory, worker_id, "tiny-smolvlm-tied", make)


@pytest.fixture(scope="session")
def tiny_smolvlm2(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """SmolVLMForConditionalGeneration (the SmolVLM2 classes)."""
    from tiny_models import make_tiny_smolvlm

    def make(out: Path) -> None:
        make_tiny_smolvlm(out, seed=2, smolvlm2=True)

    return made_once(tmp_path_factory, worker_id, "tiny-smolvlm2", make)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_smolvlm: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Bundle of tiny_smolvlm with both decoders and the tower in 32-bit floats, not verified."""
    from edge_mllm_export import ExportOptions, export_bundle

    def export(out: Path) -> None:
        options = ExportOptions(format="both", quant="f32", vision="fp32", verify=False)
        export_bundle(str(tiny_smolvlm), out, options)

    return made_once(tmp_path_factory, worker_id, "tiny.edge", export)


@pytest.fixture(params=["onnx", "gguf"])
def loading(tiny_bundle: Path, request: pytest.FixtureRequest) -> Callable[..., Model]:
    """Loads tiny_bundle on one thread with a cache in float32, and with the options that are given."""
    import edge_mllm

    settings = {"engine": request.param, "threads": 1, "kv_type": "f32", "check_hashes": False}
    return lambda **more: edge_mllm.load(tiny_bundle, **{**settings, **more})
