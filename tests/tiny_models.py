"""Tiny random-weight checkpoints of true architectures, laid out like published ones.

Weights are scaled so that activations neither vanish nor explode and logits have a standard deviation of about three:
the top-2 margin is then far above float noise, and two pictures give different answers. Norm weights and biases are
random too, so that a swapped tensor shows.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_mllm_export.json_files import write_json as _write_json
from edge_mllm_export.shapes import load_shape

SMOLVLM = load_shape("smolvlm-256m")
SMOLVLM_TEMPLATE = SMOLVLM.chat_template
SMOLVLM_MARKERS = tuple(name for name in SMOLVLM.tokenizer.added if "reserved" not in name)
"""Global picture, tile positions, the picture and the ends of pictures and turns."""
VOCABULARY = 523
"""Token ids of the tiny SmolVLM tokenizer: prime, so no linear layer has this many outputs."""


def make_tiny_smolvlm(
    directory: Path,
    *,
    seed: int = 0,
    tile: int = 32,
    tied: bool = False,
    shards: int = 1,
    smolvlm2: bool = False,
    dtype: str = "float32",
    markers: bool = True,
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    **overrides: Any,
) -> Path:
    """Write a complete tiny Idefics3ForConditionalGeneration checkpoint directory and return it.

    Args:
        directory: Where to write; made when absent.
        seed: Of the random weights.
        tile: Tile edge in pixels; a multiple of 16 (patches of 8 pixels, two by two shuffled into one token).
        tied: Output head shared with the token embedding (then no lm_head.weight is stored).
        shards: More than one: model-00001-of-0000N.safetensors with an index.
        smolvlm2: Class and model_type of SmolVLM2 (SmolVLMForConditionalGeneration).
        dtype: Of the stored weights: "float32", "bfloat16" or "float16".
        markers: The global picture and tile positions are tokens of their own, as in the 256M and 500M models; without
            them they are plain text, as in SmolVLM 2.2B and Idefics3-8B.
        text: Overrides of text_config, for example ``{"hidden_size": 256, "intermediate_size": 512}`` for K-quants.
        vision: Overrides of vision_config.
        **overrides: Of the top-level configuration, for example ``scale_factor=2``.
    """
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = write_smolvlm_tokenizer(directory, markers=markers)
    ids = {
        name: tokenizer.token_to_id(name) for name in ("<image>", "<end_of_utterance>", "<|im_start|>", "<|im_end|>")
    }
    config, model_class = _smolvlm_config(ids, tile, tied, smolvlm2, text or {}, vision or {}, overrides)
    model = model_class(config).eval()
    randomise(model, seed, tied=tied)
    model = model.to(getattr(torch, dtype))
    model.generation_config = _generation_config(ids)
    limit = sum(p.numel() * p.element_size() for p in model.parameters())
    size = limit * 2 if shards == 1 else math.ceil(limit / shards * 1.2)
    _disable_progress_bars()
    model.save_pretrained(directory, max_shard_size=size)
    write_smolvlm_processor(directory, tile, config)
    (directory / "README.md").write_text("---\nlicense: apache-2.0\nlibrary_name: transformers\n---\n\n# Tiny\n")
    return directory


def _smolvlm_config(
    ids: dict[str, int],
    tile: int,
    tied: bool,
    smolvlm2: bool,
    text: dict[str, Any],
    vision: dict[str, Any],
    top: dict[str, Any],
) -> tuple[Any, Any]:
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
    )

    common = {
        "pad_token_id": ids["<|im_end|>"],
        "bos_token_id": ids["<|im_start|>"],
        "eos_token_id": ids["<end_of_utterance>"],
    }
    text_config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "rope_theta": 100000.0,
        "rms_norm_eps": 1e-5,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": tied,
    }
    vision_config = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": tile,
        "patch_size": 8,
    }
    config_class, model_class = (
        (SmolVLMConfig, SmolVLMForConditionalGeneration)
        if smolvlm2
        else (Idefics3Config, Idefics3ForConditionalGeneration)
    )
    settings = {
        "scale_factor": 2,
        "image_token_id": ids["<image>"],
        "tie_word_embeddings": tied,
        "text_config": {**text_config, **common, **text},
        "vision_config": {**vision_config, **vision},
        **common,
        **top,
    }
    return config_class(**settings), model_class


def _disable_progress_bars() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()


def _generation_config(ids: dict[str, int]) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(
        bos_token_id=ids["<|im_start|>"], eos_token_id=ids["<end_of_utterance>"], pad_token_id=ids["<|im_end|>"]
    )


def randomise(model: Any, seed: int, *, tied: bool = False) -> None:
    """Give every parameter of a torch module new values from one generator, in the order of their names."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * _spread(name, parameter, tied) + (1.0 if _is_norm_weight(name) else 0.0))


def _is_norm_weight(name: str) -> bool:
    return name.endswith("weight") and "norm" in name.rsplit(".", 2)[-2]


def _spread(name: str, parameter: Any, tied: bool) -> float:
    """Standard deviation of one parameter's values."""
    if _is_norm_weight(name) or parameter.ndim < 2:
        return 0.1
    fan_in = parameter[0].numel()
    if "lm_head" in name or ("embed_tokens" in name and tied):
        return 3.0 / math.sqrt(fan_in)  # on states of unit RMS: logits with a standard deviation of three
    if "embed_tokens" in name or "position_embedding" in name:
        return 1.0
    return 1.4 / math.sqrt(fan_in)


def write_smolvlm_tokenizer(directory: Path, *, markers: bool = True) -> Any:
    """Write the tokenizer files in the form of SmolVLM-256M's and return the tokenizers.Tokenizer."""
    from edge_mllm_export.shapes import write_tokenizer

    added = SMOLVLM_MARKERS
    if not markers:
        added = tuple(name for name in added if name != "<global-img>" and not name.startswith("<row_"))
    plan = replace(SMOLVLM.tokenizer, base_size=VOCABULARY - len(added), added=added)
    return write_tokenizer(directory, plan, SMOLVLM.tokenizer_config | {"model_max_length": 2048})


def write_smolvlm_processor(directory: Path, tile: int, config: Any) -> None:
    """Write preprocessor_config.json, processor_config.json and chat_template.json in SmolVLM's layout."""
    patches = tile // config.vision_config.patch_size
    settings = {"image_seq_len": (patches // config.scale_factor) ** 2, "processor_class": "Idefics3Processor"}
    cut = {"max_image_size": {"longest_edge": tile}, "size": {"longest_edge": 4 * tile}}
    _write_json(directory / "preprocessor_config.json", SMOLVLM.preprocessor | cut)
    _write_json(directory / "processor_config.json", settings)
    _write_json(directory / "chat_template.json", {"chat_template": SMOLVLM_TEMPLATE})
