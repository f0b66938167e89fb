"""Stage 3: tower and language model together, on whole pages as the processor cuts them."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from . import feed
from .charmap import CLASSES, MOST
from .codes import Codebook
from .dialogs import Example, Packer, collate, make_example
from .make_tokenizer import make_processor, special_ids
from .model import HIDDEN, fast_attention, make_config, make_model, text_loss, tower_features
from .optim import Trainer
from .train_text import right_answers, shared_book


def build(ids: dict[str, int], rate: float, frozen: bool) -> tuple[nn.Module, dict[str, nn.Module], Trainer]:
    """Return the model, the modules of this stage and their trainer."""
    model = make_model(make_config(ids))
    fast_attention(model)
    modules = {
        "vision": model.model.vision_model,
        "connector": model.model.connector,
        "text": model.model.text_model,
        "reader": nn.Linear(HIDDEN, CLASSES),
        "counter": nn.Linear(HIDDEN, MOST),
    }
    trainer = Trainer(modules, rate)
    if frozen:
        del modules["vision"]
        for name in [name for name in trainer.low if name.startswith("vision.")]:
            trainer.low[name].requires_grad_(False)
    model.lm_head.to(torch.bfloat16)
    model.lm_head.weight = model.model.text_model.embed_tokens.weight
    return model, modules, trainer


def visual_tokens(
    model: nn.Module, pixels: torch.Tensor, inked: torch.Tensor, frozen: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the patch features of the tiles with text and the tokens of all; tiles without text get no gradient.

    With a frozen tower only the projector learns, from all tiles.
    """
    if frozen:
        with torch.no_grad():
            hidden = tower_features(model, pixels)[0]
        return hidden[inked], model.model.connector(hidden)
    hidden, tokens = tower_features(model, pixels[inked])
    everything = tokens.new_zeros(len(pixels), *tokens.shape[1:])
    with torch.no_grad():
        everything[~inked] = tower_features(model, pixels[~inked])[1]
    return hidden, everything.index_put((inked.nonzero()[:, 0],), tokens)


def step_losses(
    model: nn.Module, modules: dict, examples: list[Example], pad: int, rng: np.random.Generator | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict, torch.Tensor]:
    """Return the losses of the answers, of keeping one's place and of the tower, the batch and the right tokens."""
    batch = collate(examples, pad)
    pixels = feed.to_pixels(batch["tiles"].numpy())
    pixels = (feed.recolour(pixels, rng) if rng else pixels).to(torch.bfloat16)
    inked = (batch["cells"] > 0).any(2).any(1)
    hidden, tokens = visual_tokens(model, pixels, inked, "vision" not in modules)
    loss, place, right = text_loss(model, batch, tokens.flatten(0, 1), modules["counter"])
    tiles = torch.tensor([index < len(e.tiles) - 1 for e in examples for index in range(len(e.tiles))])
    patches = batch["patches"][inked[tiles]]
    under = F.cross_entropy(modules["reader"](hidden).float().flatten(0, 1), patches.flatten())
    return loss, place, under, batch, right


@torch.no_grad()
def translate(trainer: Trainer, spoken: Codebook, understood: Codebook) -> None:
    """Let a projector that was trained for one code speak another."""
    weight = trainer.high["connector.modality_projection.proj.weight"]
    weight.copy_(spoken.translation(understood) @ weight)
    trainer.push()


@torch.no_grad()
def check(model: nn.Module, modules: dict, pool: list[Example], pad: int) -> dict[str, float]:
    """Return the share of held-out answers that greedy decoding gets right, over all questions."""
    good = total = 0
    for at in range(0, len(pool), 20):
        *_, batch, right = step_losses(model, modules, pool[at : at + 20], pad, None)
        counts = right_answers(batch, right)
        good, total = good + counts[0], total + counts[1]
    return {"heldout_answers": round(good / total, 4)}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--start", type=Path, nargs="*", default=[], help="state files of the stages before")
    parser.add_argument("--shared", type=Path, help="the state file that the language model's code was made from")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--frozen", action="store_true", help="leave the tower as it is")
    parser.add_argument("--first-seed", type=int, default=30_000_000, help="of the pages; another one for each stage")
    parser.add_argument("--minutes", type=float, help="stop by the clock; the rate falls over the last third")
    parser.add_argument("--decay", type=int, default=800)
    parser.add_argument("--tower-weight", type=float, default=0.5)
    parser.add_argument("--place-weight", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=int, default=50)
    return parser.parse_args()


def main() -> None:
    """Train until the given number of steps; resumes where the state file ends."""
    options = parse()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    ids = special_ids(make_processor().tokenizer)
    model, modules, trainer = build(ids, options.rate, options.frozen)
    state_file, done, seconds = options.work / "joint.pt", 0, 0.0
    if state_file.exists():
        saved = torch.load(state_file, weights_only=True)
        trainer.load(saved["trainer"])
        done, seconds = saved["step"], saved["seconds"]
    else:
        for path in options.start:
            trainer.load(torch.load(path, weights_only=True)["trainer"], optimisers=False)
        if options.shared:
            translate(trainer, Codebook(), shared_book(options.shared))
    rng, start = np.random.default_rng(done), time.time() - seconds
    checks = [make_example(seed, Packer(), True, heldout=True) for seed in range(910_000, 910_080)]
    pool = feed.ExamplePool(options.first_seed + done * 100, draw=True, capacity=1500, reuse=1.5)
    losses, good, total = [], 0, 0
    spent = 0.0
    while done < options.steps and spent < 1.0:
        if options.minutes:
            spent = (time.time() - start) / 60 / options.minutes
        loss, place, own, batch, right = step_losses(model, modules, pool.batch(options.batch, rng), ids["pad"], rng)
        (loss + options.place_weight * place + options.tower_weight * own).backward()
        trainer.step(min(1.0, (done + 1) / 50, max(0.05, min((options.steps - done) / options.decay, (1 - spent) * 2))))
        done += 1
        losses.append([loss.item(), place.item(), own.item()])
        counts = right_answers(batch, right)
        good, total = good + counts[0], total + counts[1]
        if done % options.every == 0:
            entry = {
                "stage": "joint",
                "step": done,
                "pages": pool.drawn,
                "seconds": round(time.time() - start, 1),
                "loss": np.mean(losses, 0).round(4).tolist(),
                "answers": round(good / total, 4),
            }
            entry |= check(model, modules, checks, ids["pad"])
            losses, good, total = [], 0, 0
            with (options.work / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
        if done % 100 == 0 or done == options.steps or spent >= 1.0:
            temporary = state_file.with_suffix(".new")
            torch.save({"trainer": trainer.state(), "step": done, "seconds": time.time() - start}, temporary)
            temporary.rename(state_file)


if __name__ == "__main__":
    main()
