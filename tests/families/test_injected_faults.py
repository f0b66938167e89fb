"""Faults put into our template, tokenizer, normalisation and tilers: verification of every family finds each.

The reference is the processor that the checkpoint's own files give, so nothing of ours can hide a difference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from family_makers import MAKERS, make_tiny

from edge_mllm.bundle.spec import BundleSpec
from edge_mllm.bundle.tilers import (
    AdaptiveSlices,
    AspectGrid,
    BestFitGrid,
    LongestEdgeGrid,
    NativeResolution,
    PanAndScan,
    SingleTile,
    Tiler,
)
from edge_mllm.errors import PartMismatchError
from edge_mllm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from edge_mllm_export.families.family import Family
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.families.task import resolve_task
from edge_mllm_export.job import Job
from edge_mllm_export.reference.probes import Probe, further_sizes, pixel_probes, text_probes
from edge_mllm_export.reference.reference import Inputs, Reference
from edge_mllm_export.verify import inputs as inputs_module
from edge_mllm_export.verify.candidate import Candidate
from edge_mllm_export.verify.inputs import compare_inputs
from edge_mllm_export.verify.verdict import PIXEL_TOLERANCE
from edge_mllm_export.write import bundle as bundle_module
from edge_mllm_export.write.parts import Written, write_text_files
from edge_mllm_export.write.place import write_manifest

SIZES = 12
BYTES = {
    "decoder_gguf": ("decoder.gguf", "f32"),
    "vision": ("vision.onnx", "fp32"),
    "newline": ("newline.npy", ""),
}
"""Parts that no comparison of inputs opens, a byte each."""
WITH_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ 'x' }}{% endif %}"


class Remembering(Reference):
    """The reference's inputs without its model, each made once."""

    def __init__(self, checkpoint: Checkpoint, family: Family) -> None:
        super().__init__(checkpoint, family, resolve_task(checkpoint, family))
        self._made: dict[int, Inputs | Exception] = {}

    def _load(self, *_: object) -> None:
        """No weights."""

    def inputs(self, probe: Probe) -> Inputs:
        if id(probe) not in self._made:
            try:
                self._made[id(probe)] = super().inputs(probe)
            except Exception as error:  # a template may refuse a conversation
                self._made[id(probe)] = error
        found = self._made[id(probe)]
        if isinstance(found, Exception):
            raise found
        return found


class Scene:
    """One family's checkpoint, the reference's view of all probes, and bundles with faults."""

    def __init__(self, source: Path, home: Path) -> None:
        self.checkpoint = open_checkpoint(source)
        self.family = find_family(self.checkpoint)
        self.reference = Remembering(self.checkpoint, self.family)
        self.sizes = list(islice(further_sizes(), SIZES))
        self.probes = [*text_probes(self.reference.markers), *pixel_probes()]
        self._home, self._count = home, 0

    def bundle(
        self,
        monkeypatch: pytest.MonkeyPatch,
        change: Callable[[BundleSpec], BundleSpec] = lambda spec: spec,
        **texts: Callable[[str], str],
    ) -> Path:
        """A bundle's text files and bundle.json; decoder and tower are a byte each.

        Args:
            change: Of what bundle.json says.
            **texts: Names of files without their ending -> what makes another text of theirs.
        """
        self._count += 1
        staging = self._home / str(self._count)
        staging.mkdir(parents=True)

        def write(job: Job) -> Written:
            files = write_text_files(job).files
            for name, edit in texts.items():
                (path,) = staging.glob(f"{name}.*")
                path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")
            for file, _ in BYTES.values():
                (staging / file).write_bytes(b"x")
            return Written(files | BYTES, {})

        monkeypatch.setattr(bundle_module, "steps", lambda _: {"all": write})
        spec = bundle_module.write_bundle(Job(self.checkpoint, self.family, {}, staging, staging), "faulty")
        write_manifest(change(spec), staging)
        return staging

    def compare(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        monkeypatch.setattr(inputs_module, "further_sizes", lambda: self.sizes)
        return compare_inputs(self.reference, Candidate(bundle, threads=1), self.probes)


@pytest.fixture(scope="module", params=list(MAKERS))
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    home = tmp_path_factory.mktemp("faults")
    return Scene(make_tiny(request.param, home), home / "bundles")


def is_found(section: dict[str, Any]) -> bool:
    """Whether a verification fails: its verdict holds pixels and ids against every export."""
    ids = section["token_ids"]
    return bool(section["pixels"]["max_abs_difference"] > PIXEL_TOLERANCE or ids["equal"] < ids["prompts"])


def test_without_a_fault_everything_is_equal(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    section = scene.compare(scene.bundle(monkeypatch), monkeypatch)
    assert not is_found(section), section
    assert section["pixels"]["max_abs_difference"] == 0
    assert section["pixels"]["pictures"] > SIZES
    assert section["token_ids"]["prompts"] > 40
    assert section["token_ids"]["refused_by_both"] < 8


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda text: text + "{{ ' ' }}", id="a space at the end"),
        pytest.param(
            lambda text: "{% if messages | length > 2 %}{{ 1 }}{% endif %}" + text, id="in long conversations"
        ),
        pytest.param(
            lambda text: "{% if messages[0]['role'] == 'system' %}{{ '\\n' }}{% endif %}" + text,
            id="with a system message",
        ),
    ],
)
def test_a_fault_in_the_template(scene: Scene, monkeypatch: pytest.MonkeyPatch, edit: Callable[[str], str]) -> None:
    section = scene.compare(scene.bundle(monkeypatch, chat_template=edit), monkeypatch)
    assert is_found(section)
    assert "prompt" in section["token_ids"]["first_difference"]


def _changed(text: str, change: Callable[[dict[str, Any]], None]) -> str:
    document = json.loads(text)
    change(document)
    return json.dumps(document, ensure_ascii=False)


def _forget_a_marker(document: dict[str, Any]) -> None:
    """The token behind all others that neither template nor pictures use becomes plain text."""
    used = (
        "image",
        "im_start",
        "im_end",
        "turn",
        "row_",
        "img",
        "IMG",
        "vision",
        "fake",
        "global",
        "utterance",
        "os>",
        "video",
    )
    free = [entry for entry in document["added_tokens"] if not any(part in entry["content"] for part in used)]
    document["added_tokens"].remove(free[-1])


def _swallow_spaces(document: dict[str, Any]) -> None:
    for entry in document["added_tokens"]:
        entry["lstrip"] = True


def _other_normaliser(document: dict[str, Any]) -> None:
    """Compatibility forms in the place of what there is."""
    old = document["normalizer"]
    before = [] if old is None else [old]
    document["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFKC"}, *before]}


def _composed(document: dict[str, Any]) -> None:
    """The composed letters of NFC where they were kept apart, or the other way round."""
    if document["normalizer"] == {"type": "NFC"}:
        document["normalizer"] = None
    else:
        old = [] if document["normalizer"] is None else [document["normalizer"]]
        document["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}, *old]}


def _spaces_before_digits(document: dict[str, Any]) -> None:
    """Two spaces before a digit become one."""
    old = [] if document["normalizer"] is None else [document["normalizer"]]
    one = {"type": "Replace", "pattern": {"Regex": "  (?=[0-9])"}, "content": " "}
    document["normalizer"] = {"type": "Sequence", "normalizers": [one, *old]}


@pytest.mark.parametrize(
    "change", [_forget_a_marker, _swallow_spaces, _other_normaliser, _composed, _spaces_before_digits]
)
def test_a_fault_in_the_tokenizer(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]
) -> None:
    bundle = scene.bundle(monkeypatch, tokenizer=lambda text: _changed(text, change))
    try:
        found = is_found(scene.compare(bundle, monkeypatch))
    except PartMismatchError:  # without one token all behind it get other ids, and the bundle does not open
        found = change is _forget_a_marker
    assert found


def _image_faults() -> Iterator[Any]:
    yield pytest.param(lambda image: replace(image, mean=(*image.mean[:2], image.mean[2] + 1e-4)), id="mean")
    yield pytest.param(lambda image: replace(image, std=(image.std[0] * 1.0001, *image.std[1:])), id="std")
    yield pytest.param(lambda image: replace(image, rescale=1 / 256), id="rescale")
    yield pytest.param(lambda image: replace(image, resample="box"), id="resample")


@pytest.mark.parametrize("fault", _image_faults())
def test_a_fault_in_the_normalisation(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Any], Any]
) -> None:
    section = scene.compare(scene.bundle(monkeypatch, lambda spec: replace(spec, image=fault(spec.image))), monkeypatch)
    assert section["pixels"]["max_abs_difference"] > PIXEL_TOLERANCE
    assert section["pixels"]["first_difference"]["pictures"]


def tiler_faults(tiler: Tiler) -> list[Tiler]:
    """The tiler with one of its numbers changed a little, or another fit."""
    if isinstance(tiler, LongestEdgeGrid):
        return [replace(tiler, longest_edge=tiler.longest_edge - tiler.tile), replace(tiler, split=not tiler.split)]
    if isinstance(tiler, AspectGrid):
        return [replace(tiler, max_tiles=tiler.max_tiles - 1), replace(tiler, min_tiles=tiler.min_tiles + 1)]
    if isinstance(tiler, NativeResolution):
        fewer, more = int(tiler.max_pixels * 0.8), int(tiler.min_pixels * 1.5)
        return [replace(tiler, max_pixels=fewer), replace(tiler, min_pixels=more)]
    if isinstance(tiler, BestFitGrid):
        other = replace(tiler, grids=tiler.grids[:-1])
        return [other, replace(tiler, grids=tuple((cols, rows) for rows, cols in tiler.grids[:2]))]
    if isinstance(tiler, AdaptiveSlices):
        return [replace(tiler, max_slices=tiler.max_slices + change) for change in (-1, 1)]
    assert isinstance(tiler, SingleTile | PanAndScan)
    fits = [replace(tiler, fit=fit) for fit in ("crop", "stretch", "pad")] if isinstance(tiler, SingleTile) else []
    return [fit for fit in fits if fit != tiler] or [SingleTile(tile=tiler.tile)]


@pytest.mark.parametrize("number", [0, 1])
def test_a_fault_in_the_tiler(scene: Scene, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    tiler = scene.family.image(scene.checkpoint).tiler
    faults = tiler_faults(tiler)
    assert len(faults) == 2 and tiler not in faults, [field.name for field in fields(tiler)]
    change = faults[number]
    bundle = scene.bundle(monkeypatch, lambda spec: replace(spec, image=replace(spec.image, tiler=change)))
    assert is_found(scene.compare(bundle, monkeypatch))
