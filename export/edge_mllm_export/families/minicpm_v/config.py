"""MiniCPM-V's config.json, which is a language model's own with a tower beside it, as transformers' objects.

The published directories bring classes of their own for it (``auto_map``). None of that code is run: which language
model it is the field ``version`` says, and everything else are fields of transformers' own configurations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

LANGUAGE_MODELS = {"2.6": "qwen2", "4.0": "llama", "4.5": "qwen3"}
"""``version`` -> what transformers calls the language model (vLLM, minicpmv.py, has the same three)."""
VISION = {
    "hidden_size": 1152,
    "image_size": 980,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}
"""``default_vision_config`` of the publisher's configuration class."""
HEAD = 128
"""Width of a head of the resampler."""
_OLDER = ("rope_theta", "rope_scaling", "head_dim")
"""Fields that configurations of language models take under older names too."""


def version_of(value: Any) -> str:
    """``version`` as text with one place: it is a number in some releases and a text in others."""
    try:
        return f"{float(value):.1f}"
    except (TypeError, ValueError):
        return str(value)


class MiniCPMVConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is not typed here
    """The tower's and the language model's configurations, and the number of queries."""

    model_type = "minicpmv"

    def __init__(
        self,
        *,
        version: Any = None,
        vision_config: Mapping[str, Any] | None = None,
        query_num: int = 64,
        tie_word_embeddings: bool = False,
        **fields: Any,
    ) -> None:
        self.version = version_of(version)
        self.query_num = query_num
        self.text_config = _text_config(self.version, {**fields, "tie_word_embeddings": tie_word_embeddings})
        tower = {key: value for key, value in (vision_config or {}).items() if key != "model_type"}
        settings = {**VISION, **tower, "vision_use_head": False}
        self.vision_config = AutoConfig.for_model("siglip_vision_model", **settings)
        super().__init__(tie_word_embeddings=tie_word_embeddings)


def _text_config(version: str, fields: Mapping[str, Any]) -> Any:
    """Those of the flat fields that the language model's class knows."""
    kind = LANGUAGE_MODELS[version]
    known = {*AutoConfig.for_model(kind).to_dict(), *_OLDER} - {"model_type", "architectures", "auto_map"}
    return AutoConfig.for_model(kind, **{key: value for key, value in fields.items() if key in known})
