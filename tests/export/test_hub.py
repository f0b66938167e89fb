"""Downloads from a server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hub_server import COMMIT, HubServer, Repository
from safetensors.torch import load_file, save_file

from edge_mllm.hub import fetch as hub
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.errors import SourceError
from edge_mllm_export.source.facts import facts_of_source
from edge_mllm_export.source.hub.configuration import fetch_configuration
from edge_mllm_export.source.hub.download import Snapshot, download, is_hub_id
from edge_mllm_export.source.source import resolve_source


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 14)


@pytest.fixture
def model(tiny_smolvlm: Path, tmp_path: Path) -> Path:
    """A repository with files that an export does not need."""
    directory = Path(shutil.copytree(tiny_smolvlm, tmp_path / "model"))
    for name in ("pytorch_model.bin", "onnx/model.onnx", "original/model.safetensors", "consolidated.safetensors"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(b"not needed")
    return directory


Fetch = Callable[..., Snapshot]


def fetch_from(server: HubServer, tmp_path: Path, source: str = "org/model") -> Snapshot:
    return download(source, endpoint=server.url, cache_dir=tmp_path / "cache")


def test_only_what_is_needed_is_fetched(model: Path, tmp_path: Path) -> None:
    with HubServer(model=Repository(model)) as server:
        snapshot = fetch_from(server, tmp_path)
        fetched = server.fetched()
    assert (snapshot.repo, snapshot.revision) == ("org/model", COMMIT)
    unwanted = {"pytorch_model.bin", "model.onnx", "consolidated.safetensors"}
    assert sorted(fetched) == sorted({path.name for path in model.iterdir() if path.is_file()} - unwanted)
    assert fetched[0] == "config.json"
    checkpoint = open_checkpoint(snapshot.path)
    assert checkpoint.sha256() == open_checkpoint(model).sha256()
    assert checkpoint.licence == "apache-2.0"


def test_a_second_time_comes_from_the_cache(model: Path, tmp_path: Path) -> None:
    with HubServer(model=Repository(model)) as server:
        first = fetch_from(server, tmp_path)
        server.requests.clear()
        assert fetch_from(server, tmp_path) == first
        assert server.fetched() == []


def test_a_plan_fetches_configuration_alone(model: Path, tmp_path: Path) -> None:
    with HubServer(model=Repository(model)) as server:
        path = fetch_configuration("org/model", endpoint=server.url, cache_dir=tmp_path / "cache")
        fetched = server.fetched()
        with pytest.raises(SourceError, match="no such model on the hub"):
            fetch_configuration("org/other", endpoint=server.url, cache_dir=tmp_path / "cache")
    assert set(fetched) <= {"config.json", "preprocessor_config.json", "processor_config.json", "README.md"}
    assert json.loads((path / "config.json").read_text()) == json.loads((model / "config.json").read_text())
    assert facts_of_source(str(path)).decoders == facts_of_source(str(model)).decoders


def test_all_shards_and_no_stray_weights(tiny_smolvlm_tied: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_smolvlm_tied, tmp_path / "model"))
    (directory / "model.safetensors").write_bytes(b"left by somebody")
    with HubServer(model=Repository(directory)) as server:
        snapshot = fetch_from(server, tmp_path)
        fetched = server.fetched()
    assert "model.safetensors" not in fetched
    assert {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} <= set(fetched)
    assert len(open_checkpoint(snapshot.path).tensors) == 58


@pytest.mark.parametrize("revision", ["v1", "main", COMMIT])
def test_revisions(model: Path, tmp_path: Path, revision: str) -> None:
    with HubServer(model=Repository(model)) as server:
        assert fetch_from(server, tmp_path, f"org/model@{revision}").revision == COMMIT
        assert f"/api/models/org/model/revision/{revision}" in {path for _, path, _ in server.requests}


def test_a_lost_connection_is_taken_up_again(model: Path, tmp_path: Path) -> None:
    with HubServer(model=Repository(model, cut={"model.safetensors": 50_000})) as server:
        snapshot = fetch_from(server, tmp_path)
        ranges = [
            wanted for method, path, wanted in server.requests if path.endswith("safetensors") and method == "GET"
        ]
    assert ranges[0] is None
    assert len(ranges) == 2
    assert ranges[1] is not None
    assert 0 < int(ranges[1].removeprefix("bytes=").rstrip("-")) <= 50_000
    assert (snapshot.path / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_after_an_interrupted_run_complete_files_are_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def full_disk(_description: str, total: int) -> Iterator[Callable[[int], None]]:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if done > total - 40_000:  # well inside the weights, which come last
                raise OSError(28, "No space left on device")

        yield advance

    with HubServer(model=Repository(model)) as server:
        with monkeypatch.context() as patch:
            patch.setattr(hub, "byte_progress", full_disk)
            with pytest.raises(SourceError, match="the disk became full while downloading; make room and try again"):
                fetch_from(server, tmp_path)
        server.requests.clear()
        snapshot = fetch_from(server, tmp_path)
        assert server.fetched() == ["model.safetensors"]
    assert (snapshot.path / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


REFUSALS = {
    "not found": ("org/nothing", Repository, "no such directory, and no such model on the hub .*hf auth login"),
    "private": (
        "org/model",
        lambda path: Repository(path, private=True),
        "the hub refuses access; if the model is private",
    ),
    "gated": (
        "org/model",
        lambda path: Repository(path, gated=True),
        "gated; accept its terms at https://huggingface.co/org/model, then log in with 'hf auth login'",
    ),
    "revision": ("org/model@v9", Repository, "the model org/model has no such revision"),
    "expired": ("org/model", lambda path: Repository(path, status=403), "the hub refuses access"),
    "down": ("org/model", lambda path: Repository(path, status=418), "HTTP status 418"),
}


@pytest.mark.parametrize(("source", "make", "words"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals_are_one_line(
    model: Path, tmp_path: Path, source: str, make: Callable[[Path], Repository], words: str
) -> None:
    with HubServer(model=make(model)) as server, pytest.raises(SourceError, match=words) as caught:
        fetch_from(server, tmp_path, source)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"cannot export '{source}': ")


@pytest.mark.parametrize(
    ("remove", "add", "words"),
    [
        (["config.json"], [], "config.json is missing there"),
        (["model.safetensors", "pytorch_model.bin"], [], "model.safetensors is missing there"),
        (["model.safetensors"], [], "Python pickles.*refs/pr/N"),
        (["config.json"], ["model-q4_0.gguf"], "holds GGUF files"),
    ],
)
def test_repositories_that_hold_no_checkpoint(
    model: Path, tmp_path: Path, remove: list[str], add: list[str], words: str
) -> None:
    for name in remove:
        (model / name).unlink()
    for name in add:
        (model / name).write_bytes(b"GGUF")
    with HubServer(model=Repository(model)) as server, pytest.raises(SourceError, match=words):
        fetch_from(server, tmp_path)
    assert server.fetched() == []


def test_a_file_that_is_listed_but_missing(model: Path, tmp_path: Path) -> None:
    repository = Repository(model, sizes={"generation_config.json": 10})
    (model / "generation_config.json").unlink()
    with (
        HubServer(model=repository) as server,
        pytest.raises(SourceError, match=r"a file of the model is missing on the hub \(.*generation_config\.json"),
    ):
        fetch_from(server, tmp_path)


def test_no_space(model: Path, tmp_path: Path) -> None:
    repository = Repository(model, sizes={"model.safetensors": 10**18})
    with (
        HubServer(model=repository) as server,
        pytest.raises(SourceError, match=r"needs 1000000000\.00 GB and '.*' has .* free; .*HF_HOME"),
    ):
        fetch_from(server, tmp_path)
    assert server.fetched() == []


def test_a_quantised_model_is_refused_before_its_weights_come(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config |= {"quantization_config": {"quant_method": "gptq", "bits": 4}, "_name_or_path": "outputs/step-900"}
    (model / "config.json").write_text(json.dumps(config))
    (model / "README.md").write_text("---\nbase_model: org/base\n---\n")
    with HubServer(model=Repository(model)) as server, pytest.raises(SourceError, match="export its base 'org/base'"):
        fetch_from(server, tmp_path)
    assert server.fetched() == ["config.json", "README.md"]


def test_without_a_network_the_cache_is_used_and_said(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with HubServer(model=Repository(model)) as server:
        first = fetch_from(server, tmp_path)
    with caplog.at_level(logging.WARNING):
        assert fetch_from(server, tmp_path) == first
    assert "cannot be reached; using the cached copy of org/model" in caplog.text
    with pytest.raises(SourceError, match=r"the hub cannot be reached .*give a local directory"):
        fetch_from(server, tmp_path, "org/other")


def test_offline_mode(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with HubServer(model=Repository(model)) as server:
        first = fetch_from(server, tmp_path)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert fetch_from(server, tmp_path) == first
        with pytest.raises(SourceError, match="not in the download cache and HF_HUB_OFFLINE forbids"):
            fetch_from(server, tmp_path, "org/other")


def test_resolve_source_goes_to_the_hub(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer(model=Repository(model)) as server:

        def local(source: str) -> Snapshot:
            return fetch_from(server, tmp_path, source)

        monkeypatch.setattr("edge_mllm_export.source.source.download", local)
        checkpoint = resolve_source("org/model@v1", tmp_path)
    assert (checkpoint.id, checkpoint.revision, checkpoint.licence) == ("org/model", COMMIT, "apache-2.0")


def test_an_adapter_on_the_hub(tiny_smolvlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "org/model", "revision": "v1"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    factors = {"A": torch.ones(2, 64), "B": torch.ones(523, 2)}
    save_file(
        {f"base_model.model.lm_head.lora_{side}.weight": values for side, values in factors.items()},
        adapter / "adapter_model.safetensors",
    )
    with HubServer(adapter=Repository(adapter), model=Repository(tiny_smolvlm)) as server:

        def local(source: str) -> Snapshot:
            return fetch_from(server, tmp_path, source)

        monkeypatch.setattr("edge_mllm_export.source.source.download", local)
        checkpoint = resolve_source("org/adapter", tmp_path)
        assert "/api/models/org/model/revision/v1" in {path for _, path, _ in server.requests}
    assert checkpoint.id == "org/adapter on org/model"
    before = load_file(tiny_smolvlm / "model.safetensors")["lm_head.weight"]
    torch.testing.assert_close(checkpoint.tensor("lm_head.weight"), before + 4.0)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("org/name", True),
        ("HuggingFaceTB/SmolVLM-256M-Instruct@refs/pr/3", True),
        ("name", False),
        ("a/b/c", False),
        ("./name", False),
        ("../name", False),
        ("~/name", False),
        ("/tmp/x", False),
        ("org/name@", False),
    ],
)
def test_what_a_hub_id_looks_like(source: str, expected: bool) -> None:
    assert is_hub_id(source) is expected
