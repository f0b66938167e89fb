"""Tiny checkpoints rewritten as other programs and other versions save them; what they say stays the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]

_SINCE_4_52: dict[str, tuple[tuple[str, str], ...]] = {
    "qwen": (("model.visual.", "visual."), ("model.language_model.", "model.")),
    "llava": (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.vision_tower.", "vision_tower."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
        ("model.image_newline", "image_newline"),
    ),
}
"""Names of today -> names before transformers 4.52 gave every model a class without a head."""
_QWEN = "qwen2"
"""Those that are older than 4.52; later ones were never saved otherwise."""
_LLAVA_LIKE = ("internvl", "llava", "llava_next", "llava_onevision", "gemma3")


def weights(folder: Path) -> Tensors:
    """All tensors of a checkpoint."""
    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


def rewrite(folder: Path, change: Callable[[str], str]) -> None:
    """Store every tensor under another name, in one file."""
    found = {change(name): value.contiguous() for name, value in weights(folder).items()}
    for file in (*folder.glob("*.safetensors"), *folder.glob("*.index.json")):
        file.unlink()
    save_file(found, folder / "model.safetensors")


def edit(file: Path, **fields: Any) -> dict[str, Any]:
    """Set fields of a JSON file, which is made where it is missing."""
    document: dict[str, Any] = (json.loads(file.read_text("utf-8")) if file.is_file() else {}) | fields
    file.write_text(json.dumps(document, indent=2), "utf-8")
    return document


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str:
    return next((new + name.removeprefix(old) for old, new in table if name.startswith(old)), name)


def _modern(model_type: str) -> Callable[[str], str]:
    """Names with ``model.`` before everything but the head."""
    kind = "qwen" if model_type.startswith(_QWEN) else "llava"
    backwards = tuple((new, old) for old, new in _SINCE_4_52[kind])

    def change(name: str) -> str:
        return name if name.startswith(tuple(old for old, _ in _SINCE_4_52[kind])) else _renamed(name, backwards)

    return change


def _by_4_52(folder: Path) -> None:
    """As transformers 4.52 to 4.57 save: tensors below ``model.``."""
    config = edit(folder / "config.json", transformers_version="4.55.0")
    if config["model_type"].startswith(_QWEN) or config["model_type"] in _LLAVA_LIKE:
        rewrite(folder, _modern(config["model_type"]))


def _by_4_49(folder: Path) -> None:
    """As transformers before 4.52 save: the tower beside the language model, names of tokens in files of their own."""
    config = edit(folder / "config.json", transformers_version="4.49.0")
    if config["model_type"].startswith(_QWEN) or config["model_type"] in _LLAVA_LIKE:
        modern = _modern(config["model_type"])
        table = _SINCE_4_52["qwen" if config["model_type"].startswith(_QWEN) else "llava"]
        rewrite(folder, lambda name: _renamed(modern(name), table))
    for place in (config, *(value for value in config.values() if isinstance(value, dict))):
        if "dtype" in place:
            place["torch_dtype"] = place.pop("dtype")
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    added = {each["content"]: each["id"] for each in tokenizer["added_tokens"]}
    (folder / "added_tokens.json").write_text(json.dumps(added), "utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    named = {key: value for key, value in settings.items() if key.endswith("_token") and isinstance(value, str)}
    (folder / "special_tokens_map.json").write_text(json.dumps(named), "utf-8")


def _flat_text_config(folder: Path) -> None:
    """As Qwen2-VL was published: the language model's fields lie at the top of config.json."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    if config["model_type"].startswith(_QWEN) and "text_config" in config:
        text = config.pop("text_config")
        rope = text.pop("rope_parameters", None)
        if rope is not None:
            text["rope_theta"] = rope["rope_theta"]
            text["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
        config = {key: value for key, value in text.items() if key != "model_type"} | config
        (folder / "config.json").write_text(json.dumps(config), "utf-8")


def _by_trainers(folder: Path) -> None:
    """What trainers leave beside a checkpoint: DeepSpeed, TRL, Accelerate."""
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", "zero_to_fp32.py"):
        (folder / name).write_bytes(b"not opened")
    (folder / "global_step100").mkdir()
    (folder / "global_step100" / "mp_rank_00_model_states.pt").write_bytes(b"not opened")
    (folder / "latest").write_text("global_step100")
    (folder / "trainer_state.json").write_text(json.dumps({"best_metric": None, "epoch": 1.0, "global_step": 100}))


def _by_swift(folder: Path) -> None:
    """A checkpoint merged by ms-swift: arguments of the training and of the export beside it."""
    arguments = {"model": "org/base", "model_type": "qwen2_vl", "train_type": "lora", "merge_lora": True}
    for name in ("args.json", "sft_args.json", "export_args.json"):
        (folder / name).write_text(json.dumps(arguments))
    (folder / "configuration.json").write_text('{"framework":"pytorch","task":"image-text-to-text"}\n')
    (folder / "logging.jsonl").write_text("{}\n")
    (folder / "preprocessor_config.json.bak").write_text("{")
    _by_trainers(folder)


def _by_unsloth(folder: Path) -> None:
    """A checkpoint merged by Unsloth: fields of its own, another padding token, the tied head written too."""
    config = edit(folder / "config.json", unsloth_fixed=True, unsloth_version="2026.1.1", pad_token_id=0)
    edit(folder / "tokenizer_config.json", padding_side="left", model_max_length=32768)
    edit(folder / "generation_config.json", pad_token_id=0, max_length=32768)
    tied = config.get("tie_word_embeddings") or config.get("text_config", {}).get("tie_word_embeddings")
    found = weights(folder)
    embedding = [name for name in found if name.endswith("embed_tokens.weight")]
    if tied and "lm_head.weight" not in found and len(embedding) == 1:
        save_file({"lm_head.weight": found[embedding[0]].clone(), **found}, folder / "model.safetensors")


def _compiled(folder: Path) -> None:
    """Saved from a model that torch.compile wrapped."""
    rewrite(folder, lambda name: f"_orig_mod.{name}")


def _distributed(folder: Path) -> None:
    """Saved from a model that DistributedDataParallel wrapped."""
    rewrite(folder, lambda name: f"module.{name}")


def _compiled_adapter(folder: Path) -> None:
    """An adapter merged in place, in a model that torch.compile and DistributedDataParallel wrapped."""
    rewrite(folder, lambda name: f"module._orig_mod.base_model.model.{name}")


SAVED: Mapping[str, Callable[[Path], None]] = {
    "transformers 4.52": _by_4_52,
    "transformers 4.49": _by_4_49,
    "a flat language model": _flat_text_config,
    "trainers": _by_trainers,
    "ms-swift": _by_swift,
    "Unsloth": _by_unsloth,
    "torch.compile": _compiled,
    "DistributedDataParallel": _distributed,
    "all wrappers": _compiled_adapter,
}


def saved_as(source: Path, way: str, folder: Path) -> Path:
    """A copy of a tiny checkpoint, saved in another way."""
    shutil.copytree(source, folder)
    SAVED[way](folder)
    return folder
