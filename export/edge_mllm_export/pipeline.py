"""The export, verbs in order: open, find the family, write the parts, verify, appear."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle import SCHEMA_VERSION, BundleSpec, Source
from edge_mllm.errors import SettingError
from edge_mllm_export.families import find_family
from edge_mllm_export.inventory import check_tensors
from edge_mllm_export.options import AUTO, ExportOptions, choose_recipes
from edge_mllm_export.parts import Job, Written, steps
from edge_mllm_export.resources import require_disk, require_memory
from edge_mllm_export.sections import check_sections
from edge_mllm_export.shapes import PREFIX
from edge_mllm_export.source import resolve_source
from edge_mllm_export.task import resolve_task
from edge_mllm_export.write import check_target, describe, staged, write_manifest

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint import Checkpoint
    from edge_mllm_export.family import Family
    from edge_mllm_export.task import Task

Announce = Callable[[str], None]
"""Called with the name of each step as it begins."""

_LIBRARIES = (
    "edge-mllm",
    "torch",
    "transformers",
    "onnx",
    "onnxruntime",
    "onnxruntime-genai",
    "gguf",
    "llama-cpp-python",
)


def export_bundle(
    source: str, out: Path, options: ExportOptions | None = None, announce: Announce = lambda _: None
) -> BundleSpec:
    """Turn a checkpoint into a verified bundle at ``out``.

    Args:
        source: A checkpoint directory, a hub id (``org/name`` or ``org/name@revision``) or ``shape:NAME``.
        out: The directory to make. It appears when everything is done, or not at all.
        options: Formats, recipes, limits.
        announce: Told about each step.

    Returns:
        What was written to bundle.json.

    Raises:
        EdgeMLLMError: With a message that says what was wrong and what to do.
    """
    options = options or ExportOptions()
    recipes = choose_recipes(options)
    if source.startswith(PREFIX):
        _refuse_random_weights(options)
    check_target(out, force=options.force)
    with staged(out, force=options.force) as staging:
        work = staging / "work"
        work.mkdir()
        announce(f"opening {source}")
        checkpoint = resolve_source(source, work)
        family = find_family(checkpoint)
        checkpoint = _with_choices(checkpoint, family, options)
        _check_mmproj(options, family)
        task = resolve_task(checkpoint, family)
        check_sections(checkpoint, family)
        check_tensors(checkpoint, family)
        job = Job(checkpoint, family, recipes, staging, work, kv=options.kv)
        require_disk(job)
        if options.verify:
            require_memory(job, "the comparison with the checkpoint", "--no-verify")
        job = _chosen(_calibrated(job, task, options, announce), task, options, announce)
        written = []
        for name, step in steps(recipes).items():
            announce(f"writing {name}")
            written.append(step(job))
        spec = _manifest(job, out.name.removesuffix(".edge"), written, {})
        write_manifest(spec, staging)
        if options.verify:
            announce("verifying against the checkpoint")
            spec = _manifest(job, spec.name, written, _verify(job, task, spec, options))
            write_manifest(spec, staging)
        shutil.rmtree(work)
    return spec


def _with_choices(checkpoint: Checkpoint, family: Family, options: ExportOptions) -> Checkpoint:
    """The checkpoint with what the caller chose beyond the files: only what the family knows."""
    chosen = [name for name in ("tile_tags", "pan_and_scan") if getattr(options, name)]
    for name in chosen:
        if not getattr(family, name):
            words = name.replace("_", " ")
            raise SettingError(f"{words}: not known for {family.name}; leave --{name.replace('_', '-')} out")
    return replace(checkpoint, processor_settings=checkpoint.processor_settings | dict.fromkeys(chosen, True))


def _refuse_random_weights(options: ExportOptions) -> None:
    """Before gigabytes of them are written."""
    if options.quant == AUTO:
        raise SettingError("--quant auto measures loss, and the loss of random weights means nothing; name a recipe")
    if options.calibrate or options.calibration or options.kv:
        raise SettingError(
            "random weights cannot be calibrated: what they see means nothing; drop --calibrate, --calibration and "
            "--kv q8"
        )


def _check_mmproj(options: ExportOptions, family: Family) -> None:
    if options.mmproj and family.mmproj is None:
        raise SettingError(f"llama.cpp's libmtmd has no projector for {family.name}; leave --mmproj out")


def _calibrated(job: Job, task: Task, options: ExportOptions, announce: Announce) -> Job:
    """The job with measured inputs of the decoder's layers, where they are wanted and mean something."""
    if job.checkpoint.random_weights:
        return _with_samples(job, None, hold_back=False) if job.recipes["vision"].fixed_scales else job
    if options.calibration is False and options.calibrate:
        raise SettingError("--calibrate names pictures and --no-calibration refuses them; leave one of them out")
    if options.calibration is False and options.kv:
        raise SettingError("--kv q8 needs calibration to know how far keys and values go; leave --no-calibration out")
    wanted = options.kv or any(item.calibrated or item.sampled for item in job.recipes.values())
    if options.calibration is False or not wanted:
        return job
    pictures = "the pages that ship" if options.calibrate is None else f"the pictures in '{options.calibrate}'"
    announce(f"calibrating with {pictures}")
    hold_back = options.quant == AUTO
    job = _with_samples(job, options.calibrate, hold_back=hold_back)
    return _calibrated_decoders(job, task, options.calibrate, hold_back=hold_back)


def _chosen(job: Job, task: Task, options: ExportOptions, announce: Announce) -> Job:
    """The job with measured recipes, where they are to be chosen; what was measured goes into the bundle."""
    if options.quant != AUTO:
        return job
    from edge_mllm_export.calibration import split_probes
    from edge_mllm_export.sweep import sweep
    from edge_mllm_export.sweep_ground import lay_ground
    from edge_mllm_export.sweep_report import Limits, write_sweep

    announce("asking the checkpoint about the measuring pictures")
    ground = lay_ground(job, task, options, split_probes(options.calibrate).measure)
    found = sweep(job, ground, options, announce)
    write_sweep(found, Limits(options.max_size, options.max_loss), job.staging)
    for item in found.chosen.values():
        announce(f"chosen for {item.component}: {item.label} ({item.bytes / 1e6:.1f} MB, loss {item.loss:.4f})")
    return replace(job, recipes={**job.recipes, **found.recipes})


def _with_samples(job: Job, directory: Path | None, *, hold_back: bool) -> Job:
    """With tiles for the tower, where its recipe asks for them."""
    if not job.recipes["vision"].sampled:
        return job
    from edge_mllm_export.calibration import read_calibration, split_probes
    from edge_mllm_export.vision_onnx import tower_samples

    probes = split_probes(directory).calibrate if hold_back else read_calibration(directory)
    pictures = [picture for probe in probes for picture in probe.pictures]
    return replace(job, tower_samples=tower_samples(job.checkpoint, job.family, pictures))


def _calibrated_decoders(job: Job, task: Task, directory: Path | None, *, hold_back: bool) -> Job:
    """With what the checkpoint's language model sees, where a recipe asks for it."""
    if not (job.kv or any(item.calibrated for item in job.recipes.values())):
        return job
    from edge_mllm_export.calibration import calibrate

    require_memory(job, "calibration with pictures", "--no-calibration")
    return replace(job, calibration=calibrate(job, task, directory, hold_back=hold_back))


def _verify(job: Job, task: Task, spec: BundleSpec, options: ExportOptions) -> dict[str, Any]:
    from edge_mllm_export.verify import verify_bundle

    return verify_bundle(job, task, spec, options)


def _manifest(job: Job, name: str, written: list[Written], verification: dict[str, Any]) -> BundleSpec:
    checkpoint, family = job.checkpoint, job.family
    parts = {
        part: describe(job.staging / file, precision)
        for step in written
        for part, (file, precision) in step.files.items()
    }
    return BundleSpec(
        schema_version=SCHEMA_VERSION,
        name=name,
        source=Source(
            id=checkpoint.id,
            revision=checkpoint.revision,
            sha256=checkpoint.sha256(),
            licence=checkpoint.licence,
            family=family.name,
            random_weights=checkpoint.random_weights,
        ),
        image=family.image(checkpoint),
        vision=family.vision(checkpoint),
        prompt=family.prompt(checkpoint),
        decoder=family.decoder(checkpoint),
        parts=parts,
        recipe={key: value for step in written for key, value in step.report.items()},
        verification=verification,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        exporter=_versions(),
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
