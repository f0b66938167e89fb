"""A checkpoint of an unknown kind: the error names the nearest family and what that one cannot read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_mllm_export.errors import UnsupportedArchitectureError
from edge_mllm_export.families.nearest import nearest_family
from edge_mllm_export.families.registry import FAMILIES, family_of
from edge_mllm_export.source.source import resolve_source

LLAVA = {"vision_config": {"model_type": "clip_vision_model"}, "text_config": {"model_type": "llama"}}
UNKNOWN = {
    "llava_next_video": (
        {"architectures": ["LlavaNextVideoForConditionalGeneration"], "spatial_pool_mode": "average", **LLAVA},
        "llava",
        r"the fields spatial_pool_mode",
    ),
    "idefics2": (
        {"architectures": ["Idefics2ForConditionalGeneration"], "perceiver_config": {}, **LLAVA},
        "idefics3",
        r'vision_config\.model_type "clip_vision_model".*the fields perceiver_config',
    ),
    "qwen3_omni_moe": (
        {"architectures": ["Qwen3OmniMoe"], "vision_config": {"model_type": "qwen3_omni_moe_vision_encoder"}},
        "qwen",
        r'vision_config\.model_type "qwen3_omni_moe_vision_encoder"',
    ),
    "no class": (
        {
            "model_type": "internvl2",
            "vision_config": {"model_type": "internvl_vision"},
            "auto_map": {"AutoModel": "x.Y"},
        },
        "internvl",
        r"code of its own \(auto_map\), which is never run",
    ),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_the_nearest_family_and_what_it_lacks(kind: str) -> None:
    config, family, words = UNKNOWN[kind]
    full: dict[str, Any] = {"model_type": kind, **config}
    assert nearest_family(full, FAMILIES).family.startswith(family)
    found = (full.get("architectures") or [full["model_type"]])[0]
    expected = rf"^the architecture '{found}' is not supported: the nearest is \w+ \({family}\w*\), which does not know"
    with pytest.raises(UnsupportedArchitectureError, match=rf"{expected}.*{words}.*supported are: "):
        family_of(full)


@pytest.mark.parametrize("config", [{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, {}])
def test_a_language_model_alone(config: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedArchitectureError, match="has no vision part, so it is a language model alone"):
        family_of(config)


def test_it_is_said_before_files_are_missed(tmp_path: Path) -> None:
    """A text checkpoint has no preprocessor_config.json, but that is not what is wrong with it."""
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    with pytest.raises(UnsupportedArchitectureError, match="'LlamaForCausalLM' is not supported"):
        resolve_source(str(tmp_path), tmp_path)


def test_every_family_is_nearest_to_itself() -> None:
    for family in FAMILIES:
        for architecture in family.architectures if family.model_class is None else ():
            found = nearest_family({"architectures": [architecture.replace("For", "2For", 1)]}, FAMILIES)
            assert found.family == family.name
