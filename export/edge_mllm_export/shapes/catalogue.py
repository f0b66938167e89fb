"""The catalogue of the runtime: models by short name, with what their shapes say. Written by ``make catalogue``."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mllm.costs.estimate import Ask, costs, stage_works
from edge_mllm.hub.catalogue import Entry, StageWork
from edge_mllm_export.families.registry import FAMILIES

if TYPE_CHECKING:
    from edge_mllm.costs.facts import ModelFacts

SIZES = ((336, 336), (640, 480), (1600, 1200))
_ASK = Ask(width=640, height=480)
_ABOUT = (
    "Written from families and shapes by `make catalogue`; do not edit. GGUF ids are those of llama.cpp's list of "
    "multimodal models, ONNX ids those whose makers say that transformers.js runs them; their file lists could not be "
    "looked at where this was written."
)
_HF, _GG = "HuggingFaceTB", "ggml-org"
KNOWN: dict[str, tuple[str, str | None, str | None]] = {
    "smolvlm-256m": (
        f"{_HF}/SmolVLM-256M-Instruct",
        f"{_GG}/SmolVLM-256M-Instruct-GGUF",
        f"{_HF}/SmolVLM-256M-Instruct",
    ),
    "smolvlm-500m": (
        f"{_HF}/SmolVLM-500M-Instruct",
        f"{_GG}/SmolVLM-500M-Instruct-GGUF",
        f"{_HF}/SmolVLM-500M-Instruct",
    ),
    "smolvlm-2.2b": (f"{_HF}/SmolVLM-Instruct", f"{_GG}/SmolVLM-Instruct-GGUF", f"{_HF}/SmolVLM-Instruct"),
    "internvl3-1b": ("OpenGVLab/InternVL3-1B-hf", f"{_GG}/InternVL3-1B-Instruct-GGUF", None),
    "llava-interleave-0.5b": ("llava-hf/llava-interleave-qwen-0.5b-hf", None, None),
    "llava-onevision-0.5b": (
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
        None,
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
    ),
    "qwen2-vl-2b": (
        "Qwen/Qwen2-VL-2B-Instruct",
        f"{_GG}/Qwen2-VL-2B-Instruct-GGUF",
        "onnx-community/Qwen2-VL-2B-Instruct",
    ),
    "qwen2.5-vl-3b": ("Qwen/Qwen2.5-VL-3B-Instruct", f"{_GG}/Qwen2.5-VL-3B-Instruct-GGUF", None),
    "qwen3-vl-2b": ("Qwen/Qwen3-VL-2B-Instruct", f"{_GG}/Qwen3-VL-2B-Instruct-GGUF", None),
    "qwen3.5-0.8b": ("Qwen/Qwen3.5-0.8B", None, None),
    "gemma3-4b": ("google/gemma-3-4b-it", f"{_GG}/gemma-3-4b-it-GGUF", None),
    "minicpm-v-4": ("openbmb/MiniCPM-V-4", None, None),
    "minicpm-v-4.6": ("openbmb/MiniCPM-V-4.6", None, None),
    "minicpm-v-4.7-1b": ("openbmb/MiniCPM-V-4.7-1B", None, None),
    "ferret-ui-gemma2b": ("jadechoghari/Ferret-UI-Gemma2b", None, None),
}
"""Shape -> hub ids of the checkpoint, of a GGUF pair and of ONNX files."""


def entry(name: str, facts: ModelFacts) -> Entry:
    """A model of the catalogue, from its shape's facts: what a bundle of defaults with a GGUF decoder takes."""
    checkpoint, gguf, onnx = KNOWN[name]
    family = next(family for family in FAMILIES if checkpoint in family.checkpoints)
    decoder = next(part for part in facts.decoders["gguf"] if part.recipe == "f32")
    tower = next(part for part in facts.towers if part.recipe == "fp32")
    cost = next(cost for cost in costs(facts, _ASK, None) if cost.engine == "gguf")
    parts = (cost.engine, cost.decoder, cost.tower)
    works = {} if facts.shape is None else stage_works(facts, facts.shape, _ASK, parts)
    return Entry(
        name=name,
        family=family.name,
        checkpoint=checkpoint,
        gguf=gguf,
        onnx=onnx,
        parameters=(decoder.weight_bytes + tower.weight_bytes) // 4,
        licence=family.licence,
        bundle_bytes=cost.disk_bytes,
        visual_tokens={f"{width}x{height}": facts.picture(width, height).tokens for width, height in SIZES},
        running_bytes=cost.memory_bytes,
        works={stage: StageWork(line=line, **asdict(work)) for stage, (line, work) in works.items()},
    )


def document(facts: dict[str, ModelFacts]) -> str:
    """The text of the runtime's file, smallest model first."""
    found = sorted((entry(name, facts[name]) for name in KNOWN), key=lambda each: each.parameters)
    return json.dumps({"about": _ABOUT, "models": [asdict(each) for each in found]}, indent=1) + "\n"


def place() -> Path:
    """Where the runtime has it."""
    return Path(str(files("edge_mllm.hub"))) / "catalogue.json"
