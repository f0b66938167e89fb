"""Tiny Ferret-UI checkpoints of random weights: as this project has them, and in the layout of apple/ml-ferret."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_anyres import NEXT_GRIDS
from tiny_llava import VOCABULARY, _text_config, _vision_config
from tiny_models import _disable_progress_bars, _write_json, randomise

GEMMA_INSIDE = {106: "<start_of_turn>", 107: "<end_of_turn>"}
LLAMA_ADDED = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<region_fea>")
PAPER_GRIDS = ((2, 1), (1, 2))
"""Two halves, one above the other or side by side."""
NAMES = (
    ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
    ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ("model.language_model.", "model."),
)
"""This project's beginnings of names -> the original's."""


def make_tiny_ferret_original(
    directory: Path,
    *,
    llama: bool = False,
    tile: int = 32,
    patch: int = 8,
    grids: tuple[tuple[int, int], ...] = NEXT_GRIDS,
    sentencepiece: bool = False,
    **fields: Any,
) -> Path:
    """Write a checkpoint as published: the head beside a tied table, a region sampler, every row of the table taken.

    Args:
        directory: Where to write.
        llama: Take a Llama for the language model instead of a Gemma.
        tile: Tile edge in pixels.
        patch: Patch edge in pixels.
        grids: Rows and columns of tiles.
        sentencepiece: Write a Gemma's tokenizer.model in the place of tokenizer.json.
        **fields: Of config.json.
    """
    import torch
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    ids = _write_tokenizer(directory, llama, sentencepiece)
    text = _text_config() | ids if llama else _gemma_config() | ids
    model = _model("llama" if llama else "gemma", text, tile, patch)
    tensors: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        before, after = next((pair for pair in NAMES if name.startswith(pair[0])), ("", ""))
        tensors[after + name.removeprefix(before)] = value.detach().clone().contiguous()
    width = text["hidden_size"]
    tensors["model.region_geo_sampler.dim_projector.weight"] = torch.ones(width, 64)
    tensors["model.region_geo_sampler.flatten_projector.bias"] = torch.ones(64)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    kind = "Llama" if llama else "Gemma"
    config = text | {
        "architectures": [f"Ferret{kind}ForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": f"modeling.Ferret{kind}ForCausalLM"},
        "model_type": f"ferret_{kind.lower()}",
        "im_region_fea_token": VOCABULARY - 1,
        "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": [[cols * tile, rows * tile] for rows, cols in grids],
        "mm_hidden_size": 96,
        "mm_patch_merge_type": "spatial",
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": f"openai/clip-vit-base-patch{patch}-{tile}",
        "region_geo_sampler": True,
        "sampler_pooler_mode": "max",
        "tokenizer_model_max_length": 4096,
        "transformers_version": "4.39.0",
        "use_mm_proj": True,
    }
    config = {key: value for key, value in config.items() if key != "tie_word_embeddings" or llama}
    _write_json(directory / "config.json", config | fields)
    return directory


def make_tiny_ferret_ui(directory: Path, **options: Any) -> Path:
    """The same as the exporter rewrites it, which is what the family reads."""
    from edge_mllm_export.source.layouts.ferret import rewrite_ferret_original

    original = make_tiny_ferret_original(directory.with_name(f"{directory.name}-original"), **options)
    config = json.loads((original / "config.json").read_text(encoding="utf-8"))
    return rewrite_ferret_original(original, config, directory)


def _model(kind: str, text: dict[str, Any], tile: int, patch: int) -> Any:
    from edge_mllm_export.families.ferret_ui.model import FerretUIConfig, FerretUIForConditionalGeneration

    vision = _vision_config(tile, patch) | {"hidden_size": 96, "num_attention_heads": 12, "hidden_act": "quick_gelu"}
    tied = kind == "gemma"
    config = FerretUIConfig(
        vision_config={"model_type": "clip_vision_model", **vision},
        text_config={"model_type": kind, **text},
        image_token_index=VOCABULARY - 1,
        image_grid_pinpoints=[[tile, tile]],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=tied,
    )
    _disable_progress_bars()
    model = FerretUIForConditionalGeneration(config).eval()
    randomise(model, 0, tied=tied)
    if tied:
        _shift_norms(model)
    return model


def _shift_norms(model: Any) -> None:
    """A Gemma multiplies with one more than its norms' weights, so the stored ones must lie about zero."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight") and "language_model" in name:
                parameter -= 1.0


def _gemma_config() -> dict[str, Any]:
    return {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "hidden_act": "gelu",
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "vocab_size": VOCABULARY,
    }


def _write_tokenizer(directory: Path, llama: bool, sentencepiece: bool) -> dict[str, int]:
    """Write a tokenizer whose last token is the region's; return begin and end."""
    from edge_mllm_export.shapes import load_shape, write_tokenizer

    if llama:
        base = VOCABULARY - len(LLAMA_ADDED)
        plan = replace(load_shape("qwen2-vl-2b").tokenizer, base_size=base, added=LLAMA_ADDED)
        names = {"bos_token": LLAMA_ADDED[0], "eos_token": "<|eot_id|>"}
        write_tokenizer(directory, plan, names | {"tokenizer_class": "PreTrainedTokenizerFast"})
        _begin_every_text(directory / "tokenizer.json", LLAMA_ADDED[0], base)
        return {"bos_token_id": base, "eos_token_id": base + 3}
    gemma = load_shape("gemma3-4b")
    first = {number: text for number, text in gemma.tokenizer.special.items() if number < 5}
    special = first | GEMMA_INSIDE
    plan = replace(gemma.tokenizer, base_size=VOCABULARY - 1, special=special, added=("<region_fea>",))
    settings = gemma.tokenizer_config | {"model_max_length": 4096}
    settings = {key: value for key, value in settings.items() if not key.startswith(("boi", "eoi", "image", "extra"))}
    write_tokenizer(directory, plan, settings | {"additional_special_tokens": ["<region_fea>"]})
    if sentencepiece:
        _as_model(directory)
    return {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}


def _begin_every_text(file: Path, token: str, number: int) -> None:
    """Let a tokenizer put its begin token before every text, as Llama 3's does."""
    document = json.loads(file.read_text(encoding="utf-8"))
    begin, text = {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, text],
        "pair": [begin, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }
    file.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def _as_model(directory: Path) -> None:
    """Turn tokenizer.json into the tokenizer.model that a published Gemma has in its place."""
    from tiny_internlm2 import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, write_model

    document = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    ranks = {"".join(pair): -float(number) for number, pair in enumerate(document["merges"])}
    kinds = {"<unk>": UNKNOWN, **dict.fromkeys(("<pad>", "<eos>", "<bos>"), CONTROL), "<mask>": USER_DEFINED}
    kinds |= dict.fromkeys(GEMMA_INSIDE.values(), USER_DEFINED)
    pieces = [
        (text, ranks.get(text, -5000.0), BYTE if text.startswith("<0x") else kinds.get(text, NORMAL))
        for text, _ in sorted(document["vocab"].items(), key=lambda entry: entry[1])
        if text != "<region_fea>"
    ]
    write_model(directory / "tokenizer.model", pieces)
    (directory / "tokenizer.json").unlink()
