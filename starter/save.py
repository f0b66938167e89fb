"""Write a checkpoint folder in the Hugging Face layout, whole or not at all."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import GenerationConfig

from .make_tokenizer import make_processor, save_processor, special_ids
from .model import make_config, make_model

HERE = Path(__file__).parent


def save_checkpoint(weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Write weights (by names in the model), configuration, tokenizer and processor; replaces the folder at once."""
    ids = special_ids(make_processor().tokenizer)
    model = make_model(make_config(ids))
    missing = model.load_state_dict(weights, strict=False)
    if missing.unexpected_keys:
        raise ValueError(f"weights that the model does not have: {missing.unexpected_keys}")
    model.to(torch.bfloat16)
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    model.generation_config = GenerationConfig(
        bos_token_id=ids["bos"], eos_token_id=ids["eos"], pad_token_id=ids["pad"], do_sample=False
    )
    model.save_pretrained(fresh)
    save_processor(fresh)
    _tidy_config(fresh / "config.json")
    for name in ("README.md", "LICENSE"):
        source = HERE / "card" / name
        if source.exists():
            shutil.copy(source, fresh / name)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _tidy_config(path: Path) -> None:
    """Name the architecture and the data type as published checkpoints do."""
    config = json.loads(path.read_text())
    config["architectures"] = ["Idefics3ForConditionalGeneration"]
    path.write_text(json.dumps(config, indent=2) + "\n")


PLACES = {"vision.": "model.vision_model.", "connector.": "model.connector.", "text.": "model.text_model."}


def recover(folder: Path) -> dict:
    """Return a checkpoint's weights as a trainer's state without optimisers: the inverse of `collect`."""
    weights = load_file(folder / "model.safetensors")
    found = {
        prefix + name.removeprefix(place): weight.float()
        for name, weight in weights.items()
        for prefix, place in PLACES.items()
        if name.startswith(place)
    }
    return {"weights": found}


def collect(*states: dict) -> dict[str, torch.Tensor]:
    """Gather the model's weights from the states of the stages; later states win."""
    found: dict[str, torch.Tensor] = {}
    for state in states:
        for name, weight in state["weights"].items():
            for prefix, place in PLACES.items():
                if name.startswith(prefix):
                    found[place + name.removeprefix(prefix)] = weight
    if "model.text_model.embed_tokens.weight" in found:
        found["lm_head.weight"] = found["model.text_model.embed_tokens.weight"]
    return found


def main() -> None:
    """Write the checkpoint that one or more state files hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("states", type=Path, nargs="*", help="state files of the stages; later ones win")
    parser.add_argument("--out", type=Path, default=HERE / "checkpoint")
    options = parser.parse_args()
    loaded = [torch.load(path, weights_only=True)["trainer"] for path in options.states]
    save_checkpoint(collect(*loaded), options.out)


if __name__ == "__main__":
    main()
