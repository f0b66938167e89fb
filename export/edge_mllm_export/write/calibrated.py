"""A job with what its recipes must be measured with: the decoder's moments, the tower's samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mllm.errors import SettingError
from edge_mllm_export.job import Announce, Job
from edge_mllm_export.options import AUTO, ExportOptions
from edge_mllm_export.write.resources import require_memory

if TYPE_CHECKING:
    from edge_mllm_export.families.task import Task


def calibrated(job: Job, task: Task, options: ExportOptions, announce: Announce) -> Job:
    """The job with measured inputs of the decoder's layers, where they are wanted and mean something."""
    if any(target.precision != "fp16" or target.kind == "rknn" for target in job.targets):
        job = _with_npu_samples(job, options.calibrate)
    if job.checkpoint.random_weights:
        fixed = any(recipe.fixed_scales for recipe in job.recipes.values())
        return _with_samples(job, None, hold_back=False) if fixed else job
    if options.calibration is False and options.calibrate:
        raise SettingError("`calibrate` names pictures and `calibration=False` refuses them; leave one of them out")
    if options.calibration is False and options.kv:
        raise SettingError("`kv='q8'` needs calibration to know how far values go; leave `calibration=False` out")
    wanted = options.kv or any(item.calibrated or item.sampled for item in job.recipes.values())
    if options.calibration is False or not wanted:
        return job
    pictures = "the pages that ship" if options.calibrate is None else f"the pictures in '{options.calibrate}'"
    announce(f"calibrating with {pictures}")
    hold_back = options.quant == AUTO
    job = _with_samples(job, options.calibrate, hold_back=hold_back)
    return _calibrated_decoders(job, task, options.calibrate, hold_back=hold_back)


def _with_samples(job: Job, directory: Path | None, *, hold_back: bool) -> Job:
    """With tiles for the towers, where a recipe asks for them."""
    if not any(recipe.sampled for recipe in job.recipes.values()):
        return job
    from edge_mllm_export.calibrate.calibration import read_calibration, split_probes
    from edge_mllm_export.write.vision.tower import tower_samples

    probes = split_probes(directory).calibrate if hold_back else read_calibration(directory)
    pictures = [picture for probe in probes for picture in probe.pictures]
    return replace(job, tower_samples=tower_samples(job.checkpoint, job.family, pictures))


def _with_npu_samples(job: Job, directory: Path | None) -> Job:
    """With tiles that towers for NPUs have their scales from and are compared on, even for random weights."""
    from edge_mllm_export.calibrate.calibration import read_calibration
    from edge_mllm_export.write.vision.tower import NPU_TILES, tower_samples

    pictures = [picture for probe in read_calibration(directory) for picture in probe.pictures]
    most = NPU_TILES if any(target.precision != "fp16" for target in job.targets) else _COMPARED
    return replace(job, npu_samples=tower_samples(job.checkpoint, job.family, pictures, most=most))


_COMPARED = 8
"""Tiles where no scale is taken from them."""


def _calibrated_decoders(job: Job, task: Task, directory: Path | None, *, hold_back: bool) -> Job:
    """With what the checkpoint's language model sees, where a recipe asks for it."""
    if not (job.kv or any(item.calibrated for item in job.recipes.values())):
        return job
    from edge_mllm_export.calibrate.calibration import calibrate

    require_memory(job, "calibration with pictures", "`calibration=False`")
    seen = calibrate(job.checkpoint, job.family, task, directory, work=job.work, hold_back=hold_back)
    return replace(job, calibration=seen)
