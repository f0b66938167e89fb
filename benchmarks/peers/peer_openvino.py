"""OpenVINO through optimum-intel: 4-bit decoder; the variant is ``w8`` (8-bit tower weights) or ``w8a8``.

``w8`` is what optimum-intel writes by itself. ``w8a8`` quantises the tower's activations too, statically, with NNCF on
noise (the weights are random, so no picture would be a better sample); it is the faster of the two.
"""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from prompts import chat_prompt
from protocol import Job, Question, Reply, serve
from token_clock import VisionClock, ask

_PACKAGES = ("openvino", "optimum-intel", "nncf", "transformers", "torch")
_TOWER = "openvino_vision_embeddings_model.xml"
_TILES = 4
"""Tiles of noise that ranges are measured on."""
_MORE = {"qwen2_vl": ("vision_embeddings_merger_model",)}
"""Further models that a family's tower consists of; the first is no more than its patches then."""
_GROUP = 32
"""Weights that share a scale, as in the other peers' 4-bit formats."""


def prepare(job: Job) -> None:
    """Export and quantise with optimum-intel."""
    from optimum.intel import (
        OVModelForVisualCausalLM,
        OVPipelineQuantizationConfig,
        OVWeightQuantizationConfig,
    )

    parts: dict[str, Any] = {
        "lm_model": OVWeightQuantizationConfig(bits=4, sym=True, group_size=_GROUP, ratio=1.0),
        "text_embeddings_model": OVWeightQuantizationConfig(bits=8),
    }
    family = _model_type(job.checkpoint)
    if job.variant == "w8":
        parts |= {
            name: OVWeightQuantizationConfig(bits=8, sym=True)
            for name in ("vision_embeddings_model", *_MORE.get(family, ()))
        }
    elif family in _MORE:
        raise RuntimeError("optimum-intel cuts the tower of this family in two, which is quantised with w8 only here")
    source = _older(Path(job.checkpoint), Path(job.out) / "source")
    model = OVModelForVisualCausalLM.from_pretrained(
        source,
        export=True,
        compile=False,
        quantization_config=OVPipelineQuantizationConfig(quantization_configs=parts),
    )
    model.save_pretrained(job.out)
    _processor(str(source)).save_pretrained(job.out)
    for name in ("chat_template.json", "chat_template.jinja"):
        if (Path(job.checkpoint) / name).is_file():
            shutil.copy(Path(job.checkpoint) / name, job.out)
    if job.variant == "w8a8":
        _quantise_tower(job.out)


def _older(checkpoint: Path, out: Path) -> Path:
    """The checkpoint with a tokenizer class and rotary fields that transformers 4 knows; everything else is linked."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for file in checkpoint.iterdir():
        (out / file.name).symlink_to(file.resolve())
    settings = out / "tokenizer_config.json"
    fields = json.loads(settings.read_text("utf-8"))
    if fields.get("tokenizer_class") == "TokenizersBackend":
        fields["tokenizer_class"] = "PreTrainedTokenizerFast"
        fields["additional_special_tokens"] = fields.pop("extra_special_tokens", [])
        _instead(settings, fields)
    config = json.loads((out / "config.json").read_text("utf-8"))
    text = config.get("text_config", config)
    rotary = text.pop("rope_parameters", None)
    if rotary is not None:
        text["rope_theta"] = rotary["rope_theta"]
        if "mrope_section" in rotary:
            text["rope_scaling"] = {"type": "mrope", "mrope_section": rotary["mrope_section"]}
        _instead(out / "config.json", config)
    return out


def _instead(link: Path, fields: dict[str, Any]) -> None:
    """Put a file where a link to another one is."""
    link.unlink()
    link.write_text(json.dumps(fields), "utf-8")


def _quantise_tower(out: str) -> None:
    """Replace the tower by one whose activations have 8 bits too."""
    import nncf
    import openvino as ov

    feeds = _tower_inputs(out)
    tiles = len(feeds["pixel_values"])
    samples = [{name: values[tile : tile + 1] for name, values in feeds.items()} for tile in range(min(tiles, _TILES))]
    path = Path(out) / _TOWER
    quantised = nncf.quantize(
        ov.Core().read_model(path),
        nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(samples),
    )
    new = path.with_name("quantised.xml")
    ov.save_model(quantised, new, compress_to_fp16=False)
    for suffix in (".xml", ".bin"):
        new.with_suffix(suffix).replace(path.with_suffix(suffix))


def _model_type(folder: str) -> str:
    return str(json.loads((Path(folder) / "config.json").read_text("utf-8"))["model_type"])


def _processor(folder: str) -> Any:
    """The model's processor. transformers 4's for Qwen2-VL wants torchvision, for videos."""
    from transformers import AutoProcessor

    return _Qwen2VLProcessor(folder) if _model_type(folder) == "qwen2_vl" else AutoProcessor.from_pretrained(folder)


class _Qwen2VLProcessor:
    """Qwen2VLProcessor for one picture."""

    _IMAGE = "<|image_pad|>"

    def __init__(self, folder: str) -> None:
        from transformers import AutoTokenizer, Qwen2VLImageProcessor

        self._images, self._tokenizer = (
            each.from_pretrained(folder) for each in (Qwen2VLImageProcessor, AutoTokenizer)
        )

    def __call__(self, *, text: str, images: list[Any], return_tensors: str) -> Any:
        from transformers import BatchFeature

        pixels = self._images(images, return_tensors=return_tensors)
        count = int(pixels["image_grid_thw"].prod()) // self._images.merge_size**2
        ids = self._tokenizer(text.replace(self._IMAGE, self._IMAGE * count), return_tensors=return_tensors)
        return BatchFeature({**ids, **pixels})

    def save_pretrained(self, folder: str) -> None:
        """Write both parts."""
        self._images.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)


class _SeenError(Exception):
    """Carries what the tower was to be fed with."""


def _tower_inputs(out: str) -> dict[str, Any]:
    """What optimum-intel feeds the tower for a picture of noise: arrays whose first axis is the tile."""
    import numpy as np
    from optimum.intel import OVModelForVisualCausalLM
    from PIL import Image

    model = OVModelForVisualCausalLM.from_pretrained(out, compile=False, device="CPU")

    def stop(pixel_values: Any, **others: Any) -> None:
        raise _SeenError({"pixel_values": pixel_values, **others})

    model.vision_embeddings.forward = stop
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8))
    inputs = _processor(out)(text=chat_prompt(out, "x"), images=[picture], return_tensors="pt")
    try:
        model.get_vision_embeddings(**inputs)
    except _SeenError as seen:
        return {name: np.asarray(values) for name, values in seen.args[0].items()}
    raise RuntimeError("the tower was not called")


class OpenVino:
    """A loaded export."""

    def __init__(self, job: Job) -> None:
        from optimum.intel import OVModelForVisualCausalLM

        settings = {"INFERENCE_NUM_THREADS": str(job.threads), "PERFORMANCE_HINT": "LATENCY"}
        self.model = OVModelForVisualCausalLM.from_pretrained(job.out, ov_config=settings, device="CPU")
        self.processor, self.out = _processor(job.out), job.out
        self.vision = VisionClock(self.model, "get_vision_embeddings")
        self.files = [str(path) for path in Path(job.out).glob("openvino_*") if "token" not in path.name]
        versions = {name: metadata.version(name) for name in _PACKAGES}
        precision = {"decoder": f"int4 sym g{_GROUP}", "tower": job.variant}
        self.about = {"versions": versions, "precision": precision}

    def answer(self, question: Question) -> Reply:
        """Answer a question about a new picture."""
        return ask(self.model, self.processor, self.vision, question, self.out)

    def again(self, question: Question) -> Reply:
        """generate() keeps nothing of the last picture: everything is computed again."""
        return self.answer(question)


if __name__ == "__main__":
    serve(OpenVino, prepare)
