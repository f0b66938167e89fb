"""Device profiles from measurements: what a result of ``edge-mllm bench`` says about each stage's rate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from edge_mllm.bench.result import Result, Run
from edge_mllm.errors import SettingError
from edge_mllm.plan.roofline import DeviceProfile, Observation, fit_all
from edge_mllm.plan.shapes import ModelShape

_DECODER_PART = {"onnx": "decoder_onnx", "gguf": "decoder_gguf"}


def stage_names(run: Run) -> tuple[str, str, str]:
    """Names of the lines of tower, prefill and decode: rates belong to an engine and a precision."""
    precision = run.model.parts.get(_DECODER_PART[run.engine], "unknown")
    tower = run.model.parts.get("vision", "unknown")
    return f"tower/{tower}", f"prefill/{run.engine}/{precision}", f"decode/{run.engine}/{precision}"


def observe(run: Run, shape: ModelShape, tile_pixels: int) -> dict[str, Observation]:
    """Work and median time of each stage of a run.

    Args:
        run: as measured.
        shape: of its model.
        tile_pixels: pixels of one tile.

    Raises:
        SettingError: the prompt was partly in the cache, or the bytes a token needs are not known.
    """
    if any(sample.reused_tokens for sample in run.samples):
        raise SettingError("a run that reused its cache says nothing about the speed of prefill")
    if run.model.decode_bytes is None:
        raise SettingError(f"the bytes read per token are not known for '{run.model.name}'")
    median = {name: summary.median for name, summary in run.summary().items()}
    case, counts = run.case, run.counts
    tower, prefill, decode = stage_names(run)
    steps = counts.completion_tokens - 1
    past = counts.prompt_tokens + steps / 2
    step_bytes = run.model.decode_bytes + shape.decoder.kv_bytes(1) * past
    found = {
        prefill: Observation(shape.decoder.prefill_ops(counts.prompt_tokens), 1, median["prefill"]),
        decode: Observation(step_bytes * steps, steps, median["decode"]),
    }
    if counts.tiles:
        pixels = case.images * case.image_width * case.image_height + counts.tiles * tile_pixels
        found[tower] = Observation(shape.tower.ops * counts.tiles, counts.tiles, median["vision"])
        found["picture"] = Observation(pixels, case.images, median["image_decode"] + median["tiling"])
    return found


def make_profile(
    results: Sequence[Result], shapes: Mapping[str, ModelShape], tile_pixels: Mapping[str, int]
) -> DeviceProfile:
    """Fit a profile to results of one machine.

    Args:
        results: taken with the same number of threads.
        shapes: model hash -> its shape; runs of other models are left out.
        tile_pixels: model hash -> pixels of one tile.

    Raises:
        SettingError: the results are of different machines or threads, or no run has a known shape.
    """
    runs = [run for result in results for run in result.runs if run.model.sha256 in shapes]
    machines = {result.machine.id for result in results}
    threads = {run.threads for run in runs}
    if len(machines) != 1 or len(threads) != 1:
        found = f"{len(machines)} machines and {len(threads)} numbers of threads"
        raise SettingError(f"a profile is of one machine and one number of threads; these results have {found}")
    observations: dict[str, list[Observation]] = defaultdict(list)
    for run in runs:
        key = run.model.sha256
        for name, observation in observe(run, shapes[key], tile_pixels[key]).items():
            observations[name].append(observation)
    machine = results[0].machine
    return DeviceProfile(
        machine=machine.id,
        processor=machine.processor.model,
        memory_bytes=machine.memory_bytes,
        threads=threads.pop(),
        created=max(result.created for result in results),
        lines=fit_all(observations),
        peaks=machine.peaks,
    )
