"""The parts of a bundle, each written by one step into the staging directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm.arrays import FloatArray
from edge_mllm.costs.shapes import decoder_shape
from edge_mllm_export.job import Job
from edge_mllm_export.write.text_model import write_text_checkpoint
from edge_mllm_export.write.tokenizer_files import tokenizer_json

if TYPE_CHECKING:
    from edge_mllm_quant.recipes.recipe import Component, Recipe


@dataclass(frozen=True)
class Written:
    """The files of one step."""

    files: Mapping[str, tuple[str, str]]
    """Part name -> (file name, precision)."""
    report: Mapping[str, Any]
    """For the ``recipe`` section of bundle.json."""


Step = Callable[[Job], Written]


def steps(recipes: Mapping[Component, Recipe]) -> dict[str, Step]:
    """What has to be written for these recipes, in order, with a description for people."""
    known: dict[Component, tuple[str, Step]] = {
        "onnx": ("decoder.onnx", _write_onnx),
        "prompt": ("prompt.onnx", _write_prompt),
        "gguf": ("decoder.gguf", _write_gguf),
        "vision": ("vision.onnx", _write_vision),
        "vision_openvino": ("vision_openvino.onnx", _write_openvino),
        "mmproj": ("mmproj.gguf", _write_mmproj),
    }
    chosen = {known[name][0]: known[name][1] for name in known if name in recipes}
    return {"language model": _write_text, **chosen, "tokenizer and template": write_text_files}


def _text_dir(job: Job) -> Path:
    return job.work / "text"


def _write_text(job: Job) -> Written:
    write_text_checkpoint(job.checkpoint, job.family, _text_dir(job))
    return Written({}, {})


def _cache_peaks(job: Job) -> Mapping[int, tuple[FloatArray, FloatArray]] | None:
    """How far keys and values go, where the cache is kept in 8 bits; of random weights, whose speed counts, one."""
    if job.kv is None:
        return None
    if job.calibration is not None:
        return job.calibration.cache.layers
    shape = decoder_shape(job.family.text_config(job.checkpoint))
    peak = np.ones((shape.n_kv_head, shape.head_dim), np.float32)
    return dict.fromkeys(range(shape.n_layer), (peak, peak))


def _write_onnx(job: Job) -> Written:
    from edge_mllm_export.write.onnx.decoder import DATA, EMBEDDINGS, GRAPH, write_decoder_onnx

    recipe = job.recipes["onnx"]
    attention = job.family.decoder(job.checkpoint).image_attention
    peaks = _cache_peaks(job)
    report = write_decoder_onnx(
        _text_dir(job), job.staging, recipe, moments=job.moments, image_attention=attention, cache_peaks=peaks
    )
    files = {
        "decoder_onnx": (GRAPH, recipe.name),
        "decoder_onnx_data": (DATA, recipe.name),
        "embeddings": (EMBEDDINGS, recipe.embeddings),
    }
    summary = {
        **_describe(recipe),
        **_calibrated(job, recipe),
        "bits_per_weight": report.bits_per_weight,
        "cache": "float32" if peaks is None else "int8",
        **asdict(report),
    }
    return Written(files, {"decoder_onnx": summary})


def _write_prompt(job: Job) -> Written:
    from edge_mllm_export.write.onnx.prompt import DATA, GRAPH, write_prompt_onnx

    recipe = job.recipes["prompt"]
    report = write_prompt_onnx(_text_dir(job), job.staging)
    files = {"prompt_onnx": (GRAPH, recipe.name), "prompt_onnx_data": (DATA, recipe.name)}
    return Written(files, {"prompt_onnx": {**_describe(recipe), **asdict(report)}})


def _write_gguf(job: Job) -> Written:
    from edge_mllm_export.write.gguf.decoder import write_decoder_gguf
    from edge_mllm_export.write.gguf.quantise import options_of

    recipe = job.recipes["gguf"]
    options = options_of(recipe, job.moments)
    out = job.staging / "decoder.gguf"
    report = write_decoder_gguf(_text_dir(job), out, recipe.base, name=job.checkpoint.id, options=options)
    summary = {
        **_describe(recipe),
        **_calibrated(job, recipe),
        "bits_per_weight": report.bits_per_weight,
        "bytes": report.bytes,
        "fallbacks": [list(pair) for pair in report.fallbacks],
    }
    return Written({"decoder_gguf": ("decoder.gguf", recipe.name)}, {"decoder_gguf": summary})


def _write_vision(job: Job) -> Written:
    from edge_mllm_export.families.model_shape import shape_report

    written = _write_tower(job, "vision")
    parts, shape = dict(written.files), shape_report(job.checkpoint, job.family)
    if job.family.newline is not None:
        parts["newline"] = (_write_newline(job, job.family.newline), "f32")
    return Written(parts, {"vision": {**written.report["vision"], **shape}})


def _write_openvino(job: Job) -> Written:
    return _write_tower(job, "vision_openvino")


def _write_tower(job: Job, part: Component) -> Written:
    from edge_mllm_export.write.vision.tower import write_vision_onnx

    recipe, out = job.recipes[part], job.staging / f"{part}.onnx"
    # Of random weights, what pictures show means nothing but for scales that must be fixed.
    shown = recipe.sampled and (recipe.fixed_scales or not job.checkpoint.random_weights)
    samples = job.tower_samples if shown else ()
    written = write_vision_onnx(job.checkpoint, job.family, out, recipe, samples=samples)
    files = {name: (path.name, recipe.name) for name, path in zip((part, f"{part}_data"), written.files, strict=False)}
    size = sum(path.stat().st_size for path in written.files)
    return Written(files, {part: {**_describe(recipe), "bytes": size, **written.report}})


def _write_newline(job: Job, tensor: str) -> str:
    """The embedding that ends the rows of stitched tiles, float32 [n_embd]."""
    import numpy as np

    file = "newline.npy"
    np.save(job.staging / file, job.checkpoint.tensor(tensor).float().numpy(), allow_pickle=False)
    return file


def _write_mmproj(job: Job) -> Written:
    from edge_mllm_export.write.vision.mmproj import write_mmproj

    recipe = job.recipes["mmproj"]
    out = job.staging / "mmproj.gguf"
    write_mmproj(job.checkpoint, job.family, out, recipe.name)  # type: ignore[arg-type]  # a recipe of mmproj
    report = {**_describe(recipe), "bytes": out.stat().st_size}
    return Written({"mmproj": (out.name, recipe.name)}, {"mmproj": report})


def write_text_files(job: Job) -> Written:
    """Write tokenizer.json and chat_template.jinja."""
    tokenizer = tokenizer_json(job.checkpoint, job.family.decoder(job.checkpoint).n_vocab)
    (job.staging / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    (job.staging / "chat_template.jinja").write_text(job.family.chat_template(job.checkpoint), encoding="utf-8")
    return Written({"tokenizer": ("tokenizer.json", ""), "chat_template": ("chat_template.jinja", "")}, {})


def _describe(recipe: Recipe) -> dict[str, Any]:
    described: dict[str, Any] = {"name": recipe.name, "nominal_bits": recipe.bits}
    return {**described, "overrides": list(recipe.overrides)} if recipe.overrides else described


def _calibrated(job: Job, recipe: Recipe) -> dict[str, Any]:
    """Nothing was measured, or nothing was rounded: say nothing."""
    if job.calibration is None or not recipe.calibrated:
        return {}
    return {"calibration": job.calibration.summary}
