"""The export, verbs in order: open, find the family, write the parts, verify, appear."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import BundleSpec
from edge_mllm.errors import SettingError
from edge_mllm_export.families.inventory import check_tensors
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.families.task import resolve_task
from edge_mllm_export.job import Announce, Job
from edge_mllm_export.options import AUTO, ExportOptions, choose_recipes
from edge_mllm_export.shapes import PREFIX
from edge_mllm_export.source.source import resolve_source
from edge_mllm_export.write.bundle import write_bundle
from edge_mllm_export.write.calibrated import calibrated
from edge_mllm_export.write.gguf.backbones import check_backbone
from edge_mllm_export.write.gguf.text_config import TextConfig
from edge_mllm_export.write.npu.tower import check_targets as check_npus
from edge_mllm_export.write.place import check_target, staged, write_manifest
from edge_mllm_export.write.resources import require_disk, require_memory
from edge_mllm_export.write.sections import check_sections

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint
    from edge_mllm_export.families.family import Family
    from edge_mllm_export.families.task import Task


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
    recipes, targets = choose_recipes(options), options.chosen_targets()
    if source.startswith(PREFIX):
        _refuse_random_weights(options)
    check_target(out, force=options.force)
    with staged(out, force=options.force) as staging:
        work = staging / "work"
        work.mkdir()
        announce(f"opening {source}")
        checkpoint = resolve_source(source, work, options.base)
        family = find_family(checkpoint)
        checkpoint = _with_choices(checkpoint, family, options)
        _check_mmproj(options, checkpoint, family)
        task = resolve_task(checkpoint, family)
        check_sections(checkpoint, family)
        check_tensors(checkpoint, family)
        if "gguf" in recipes:
            check_backbone(TextConfig(family.text_config(checkpoint)))
        for sentence in family.decided(checkpoint):
            announce(sentence)
        job = Job(checkpoint, family, recipes, staging, work, kv=options.kv, targets=targets)
        if targets:
            check_npus(job, announce)
        require_disk(job)
        if options.verify:
            require_memory(job, "the comparison with the checkpoint", "`verify=False`")
        job = _chosen(calibrated(job, task, options, announce), task, options, announce)
        spec = write_bundle(job, out.name.removesuffix(".edge"), announce)
        if options.verify:
            announce("verifying against the checkpoint")
            spec = replace(spec, verification=_verified(job, task, spec, options))
            write_manifest(spec, staging)
        shutil.rmtree(work)
    return spec


def _with_choices(checkpoint: Checkpoint, family: Family, options: ExportOptions) -> Checkpoint:
    """The checkpoint with what the caller chose beyond the files: only what the family knows."""
    chosen = [name for name in ("tile_tags", "pan_and_scan") if getattr(options, name)]
    for name in chosen:
        if not getattr(family, name):
            words = name.replace("_", " ")
            raise SettingError(f"{words}: not known for {family.name}; leave `{name}` out")
    return replace(checkpoint, processor_settings=checkpoint.processor_settings | dict.fromkeys(chosen, True))


def _refuse_random_weights(options: ExportOptions) -> None:
    """Before gigabytes of them are written."""
    if options.quant == AUTO:
        raise SettingError("`quant='auto'` measures loss, and the loss of random weights means nothing; name a recipe")
    if options.calibrate or options.calibration:
        raise SettingError(
            "random weights cannot be calibrated: what they see means nothing; drop `calibrate` and `calibration`"
        )


def _check_mmproj(options: ExportOptions, checkpoint: Checkpoint, family: Family) -> None:
    """Before anything is written: its metadata name what libmtmd would compute otherwise than the checkpoint."""
    if not options.mmproj:
        return
    if family.mmproj is None:
        raise SettingError(f"llama.cpp's libmtmd has no projector for {family.name}; leave `mmproj` out")
    family.mmproj.keys(checkpoint)


def _chosen(job: Job, task: Task, options: ExportOptions, announce: Announce) -> Job:
    """The job with measured recipes, where they are to be chosen; what was measured goes into the bundle."""
    if options.quant != AUTO:
        return job
    from edge_mllm_export.auto.ground import lay_ground
    from edge_mllm_export.auto.report import Limits, write_sweep
    from edge_mllm_export.auto.sweep import sweep
    from edge_mllm_export.calibrate.calibration import split_probes

    announce("asking the checkpoint about the measuring pictures")
    ground = lay_ground(job, task, options, split_probes(options.calibrate).measure)
    found = sweep(job, ground, options, announce)
    write_sweep(found, Limits(options.max_size, options.max_loss), job.staging)
    for item in found.chosen.values():
        announce(f"chosen for {item.component}: {item.label} ({item.bytes / 1e6:.1f} MB, loss {item.loss:.4f})")
    return replace(job, recipes={**job.recipes, **found.recipes})


def _verified(job: Job, task: Task, spec: BundleSpec, options: ExportOptions) -> dict[str, Any]:
    from edge_mllm_export.verify.verify import verify_bundle

    return verify_bundle(job, task, spec, options)
