"""Directories that need code of their own: compared with what is written from that code, on their original files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from family_parity import Pair
from PIL import Image
from tiny_ferret_ui import make_tiny_ferret_original
from tiny_internlm2 import make_tiny_internlm2_chat
from tiny_internvl import make_tiny_internvl, make_tiny_internvl_chat
from tiny_llava_original import make_tiny_bunny, make_tiny_tinyllava

from edge_mllm.prompt.build import build_prompt
from edge_mllm_export.reference.probes import Probe, further_sizes, text_probes
from edge_mllm_export.reference.tokenizer_choice import declared_tokens
from edge_mllm_export.source.source import resolve_source


def _internvl(folder: Path, template: str = "internvl2_5") -> Path:
    return make_tiny_internvl_chat(folder / "chat", make_tiny_internvl(folder / "native"), template=template)


MAKERS: dict[str, Callable[[Path], Path]] = {
    "internvl": _internvl,
    "internvl 2": lambda folder: _internvl(folder, "Hermes-2"),
    "internlm2": lambda folder: make_tiny_internlm2_chat(folder / "chat"),
    "bunny": lambda folder: make_tiny_bunny(folder / "bunny"),
    "tinyllava": lambda folder: make_tiny_tinyllava(folder / "tinyllava"),
    "ferret": lambda folder: make_tiny_ferret_original(folder / "ferret"),
}


@pytest.fixture(scope="module", params=list(MAKERS))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def pair(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair.of(resolve_source(str(source), tmp_path_factory.mktemp("scratch")))


def test_it_is_named_in_the_report(pair: Pair) -> None:
    assert pair.processor.described["class"] is None
    assert "/" in pair.processor.described["written_from"]


def test_conversations_and_texts_are_the_publishers(pair: Pair) -> None:
    taken = {pair.spec.prompt.image_token, pair.spec.prompt.placeholder, "<image>", *pair.processor.places}
    markers = [text for text in declared_tokens(pair.processor.tokenizer) if text not in taken]
    probes = list(text_probes(markers))
    assert len(probes) > 30
    wrong = [probe for probe in probes if not np.array_equal(*_ids(pair, probe))]
    assert wrong == []


def _ids(pair: Pair, probe: Probe) -> tuple[np.ndarray, np.ndarray]:
    pictures = [Image.fromarray(picture) for picture in probe.pictures]
    expected = pair.processor.inputs(probe.messages, pictures)["input_ids"][0].numpy()
    plans = [ours.plan for ours in pair.cut(list(probe.pictures))]
    ours = build_prompt(probe.messages, plans, pair.spec, pair.tokenizer, pair.template).ids
    return expected, ours


def test_pictures_are_the_publishers(pair: Pair) -> None:
    for probe in islice(further_sizes(), 20):
        found = pair.compare(list(probe.pictures))
        assert found.ids_equal, probe.sizes
        ours = np.concatenate([picture.pixels for picture in found.ours])
        assert ours.shape == found.pixels.shape
        assert np.abs(ours - found.pixels).max() < 1e-6, probe.sizes


def test_the_original_tokenizer_files_count(source: Path, tmp_path: Path) -> None:
    """A rewriting that loses a token is compared with the directory that has it."""
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    checkpoint = resolve_source(str(copy), tmp_path)
    file = checkpoint.path / "tokenizer.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    old = [] if document["normalizer"] is None else [document["normalizer"]]
    upper = {"type": "Replace", "pattern": {"String": "What"}, "content": "Who"}
    document["normalizer"] = {"type": "Sequence", "normalizers": [upper, *old]}
    file.write_text(json.dumps(document), encoding="utf-8")
    expected, ours = _ids(Pair.of(checkpoint), Probe("What is it?", ()))
    assert not np.array_equal(expected, ours)
