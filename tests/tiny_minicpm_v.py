"""Tiny MiniCPM-V checkpoints of random weights, in the publisher's own layout: 2.6, 4.0 and 4.5."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_models import _write_json, randomise

VOCABULARY = 541
ADDED = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>", "<image>", "</image>", "<slice>", "</slice>"),
    *("<image_id>", "</image_id>"),
)
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SYSTEM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As 2.6's tokenizer_config.json has it."""
THINKING = TEMPLATE.removesuffix("{% endif %}") + (
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
"""The end of 4.5's."""


def make_tiny_minicpm_v(
    directory: Path,
    *,
    version: float | str = 4.0,
    seed: int = 0,
    scale: int = 56,
    patch: int = 14,
    side: int = 10,
    width: int = 256,
    processor: dict[str, Any] | None = None,
    **fields: Any,
) -> Path:
    """Write a complete checkpoint directory and return it.

    Args:
        directory: Where to write.
        version: Which release: it decides the language model and the tokenizer.
        seed: Of the random weights.
        scale: Side of a square that a slice has as many pixels as.
        patch: Patch edge in pixels.
        side: Rows of the table of positions.
        width: Of the language model; the tower's is another.
        processor: Fields of preprocessor_config.json that differ.
        **fields: Of config.json.
    """
    from safetensors.torch import save_file

    from edge_mllm_export.families.minicpm_v.config import MiniCPMVConfig
    from edge_mllm_export.families.minicpm_v.model import MiniCPMVForCausalLM

    directory.mkdir(parents=True, exist_ok=True)
    names = _write_tokenizer(directory, version)
    config = {
        "architectures": ["MiniCPMV"],
        "auto_map": {"AutoModel": "modeling_minicpmv.MiniCPMV", "AutoConfig": "configuration_minicpm.MiniCPMVConfig"},
        "model_type": "minicpmv",
        "version": version,
        **_language_model(width),
        **names,
        "query_num": 9,
        "image_size": 448,
        "slice_mode": True,
        "slice_config": {"max_slice_nums": 9, "patch_size": patch, "model_type": "minicpmv"},
        "use_image_id": True,
        "vision_batch_size": 16,
        "drop_vision_last_layer": False,
        "vision_config": {
            "model_type": "siglip",
            "hidden_size": 64,
            "intermediate_size": 112,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": side * patch,
            "patch_size": patch,
        },
        "transformers_version": "4.44.2",
    } | fields
    known = {key: value for key, value in config.items() if key not in ("architectures", "model_type", "auto_map")}
    model = MiniCPMVForCausalLM(MiniCPMVConfig(**known)).eval()
    randomise(model, seed)
    tensors = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    _write_json(directory / "config.json", config)
    _write_json(directory / "generation_config.json", {"eos_token_id": names["eos_token_id"]})
    _write_json(directory / "preprocessor_config.json", _preprocessor(version, scale, patch) | (processor or {}))
    return directory


def make_tiny_minicpm_v_2_6(directory: Path, **options: Any) -> Path:
    """With a Qwen2."""
    return make_tiny_minicpm_v(directory, version=2.6, **options)


def make_tiny_minicpm_v_4_5(directory: Path, **options: Any) -> Path:
    """With a Qwen3."""
    return make_tiny_minicpm_v(directory, version=4.5, **options)


def _language_model(width: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 320,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "vocab_size": VOCABULARY,
    }


def _preprocessor(version: float | str, scale: int, patch: int) -> dict[str, Any]:
    return {
        "image_processor_type": "MiniCPMVImageProcessor",
        "auto_map": {"AutoProcessor": "processing_minicpmv.MiniCPMVProcessor"},
        "processor_class": "MiniCPMVProcessor",
        "max_slice_nums": 9,
        "scale_resolution": scale,
        "patch_size": patch,
        "use_image_id": True,
        "image_feature_size": 9,
        "im_start": "<image>",
        "im_end": "</image>",
        "slice_start": "<slice>",
        "slice_end": "</slice>",
        "unk": "<unk>",
        "im_id_start": "<image_id>",
        "im_id_end": "</image_id>",
        "slice_mode": True,
        "norm_mean": [0.5, 0.5, 0.5],
        "norm_std": [0.5, 0.5, 0.5],
        "version": version,
    }


def _write_tokenizer(directory: Path, version: float | str) -> dict[str, int]:
    """4.0's is of SentencePiece's kind and begins every text with a token; the others are Qwen's."""
    from edge_mllm_export.shapes import load_shape, write_tokenizer

    if float(version) == 4.0:
        shape = load_shape("minicpm-v-4")
        added = len(shape.tokenizer.added)
        plan = replace(shape.tokenizer, base_size=VOCABULARY - added)
        tokenizer = write_tokenizer(directory, plan, shape.tokenizer_config | {"chat_template": TEMPLATE})
        return {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": tokenizer.token_to_id("<unk>")}
    plan = replace(load_shape("qwen2-vl-2b").tokenizer, base_size=VOCABULARY - len(ADDED), added=ADDED)
    settings = {
        "tokenizer_class": "MiniCPMVTokenizerFast",
        "auto_map": {"AutoTokenizer": ["tokenization_minicpmv_fast.MiniCPMVTokenizerFast", None]},
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<unk>",
        "chat_template": SYSTEM if float(version) == 2.6 else THINKING,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    }
    tokenizer = write_tokenizer(directory, plan, settings)
    return {
        "bos_token_id": tokenizer.token_to_id("<|im_start|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
    }
