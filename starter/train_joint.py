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
from .charmap import CLASSES
from .codes import Codebook
from .dialogs import Example, Packer, collate, make_example
from .make_tokenizer import make_processor, special_ids
from .model import COUNTED, HIDDEN, fast_attention, make_config, make_model, text_loss, tower_features
from .optim import Trainer
from .pages import TRAINED_SHAPES
from .palette import TRAINED_COLOURS
from .save import recover
from .train_text import right_answers, shared_book

HEADS = ("reader.", "counter.", "marker.")
MIX = "page=34,note=15,bill=15,shapes=12,heap=14,form=10"


def build(ids: dict[str, int], options: argparse.Namespace) -> tuple[nn.Module, dict[str, nn.Module], Trainer]:
    """Return the model, the modules of this stage and their trainer."""
    model = make_model(make_config(ids))
    fast_attention(model)
    modules = {
        "vision": model.model.vision_model,
        "connector": model.model.connector,
        "text": model.model.text_model,
        "reader": nn.Linear(HIDDEN, CLASSES),
        "counter": nn.Linear(HIDDEN, COUNTED),
        "marker": nn.Linear(HIDDEN, len(TRAINED_SHAPES) + len(TRAINED_COLOURS) + 2),
    }
    slower = {"vision": options.tower_rate, "connector": max(options.tower_rate, 0.7)}
    trainer = Trainer(modules, options.rate, slower | dict.fromkeys(("reader", "counter", "marker"), 2.0))
    if options.frozen:
        del modules["vision"]
        for name in [name for name in trainer.low if name.startswith("vision.")]:
            trainer.low[name].requires_grad_(False)
    model.lm_head.to(torch.bfloat16)
    model.lm_head.weight = model.model.text_model.embed_tokens.weight
    return model, modules, trainer


def visual_tokens(
    model: nn.Module, pixels: torch.Tensor, learning: torch.Tensor, frozen: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the patch features of the `learning` tiles and the tokens of all; the others get no gradient.

    With a frozen tower only the projector learns, from all tiles.
    """
    if frozen:
        with torch.no_grad():
            hidden = tower_features(model, pixels)[0]
        return hidden[learning], model.model.connector(hidden)
    hidden, tokens = tower_features(model, pixels[learning])
    everything = tokens.new_zeros(len(pixels), *tokens.shape[1:])
    with torch.no_grad():
        everything[~learning] = tower_features(model, pixels[~learning])[1]
    return hidden, everything.index_put((learning.nonzero()[:, 0],), tokens)


def step_losses(
    model: nn.Module, modules: dict, examples: list[Example], pad: int, rng: np.random.Generator | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict, torch.Tensor]:
    """Return the losses of the answers, of keeping one's place and of the tower, the batch and the right tokens.

    Tiles with text or marks teach the tower; a page with marks keeps its colours.
    """
    batch = collate(examples, pad)
    sizes = torch.tensor([len(e.tiles) for e in examples])
    thumbnail = torch.tensor([index == size - 1 for size in sizes for index in range(size)])
    painted = torch.tensor([bool(e.marks.any()) for e in examples]).repeat_interleave(sizes)
    pixels = feed.to_pixels(batch["tiles"].numpy())
    pixels = (feed.recolour(pixels, rng, painted) if rng else pixels).to(torch.bfloat16)
    inked, marked = (batch["cells"] > 0).any(2).any(1), (batch["marks"] > 0).any(2).any(1)
    learning = inked | marked
    hidden, tokens = visual_tokens(model, pixels, learning, "vision" not in modules)
    loss, place, right = text_loss(model, batch, tokens.flatten(0, 1), modules["counter"])
    own = hidden.new_zeros((), dtype=torch.float32)
    if inked.any():
        patches = batch["patches"][inked[~thumbnail]]
        own = F.cross_entropy(modules["reader"](hidden[inked[learning]]).float().flatten(0, 1), patches.flatten())
    if marked.any():
        own = own + _marker_loss(modules["marker"](hidden[marked[learning]]).float(), batch["marks"][marked])
    return loss, place, own, batch, right


def _marker_loss(said: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of shape and colour under the patches; the many without a mark weigh a fifth."""
    total = said.new_zeros(())
    inside = wanted[..., 0] > 0
    parts = said.split([len(TRAINED_SHAPES) + 1, len(TRAINED_COLOURS) + 1], dim=-1)
    for part, truth in zip(parts, wanted.unbind(-1), strict=True):
        each = F.cross_entropy(part.flatten(0, 1), truth.flatten(), reduction="none").view_as(truth)
        total = total + 0.25 * (each[inside].mean() + 0.2 * each[~inside].mean())
    return total


@torch.no_grad()
def translate(trainer: Trainer, spoken: Codebook, understood: Codebook) -> None:
    """Let a projector that was trained for one code speak another."""
    weight = trainer.high["connector.modality_projection.proj.weight"]
    weight.copy_(spoken.translation(understood) @ weight)
    trainer.push()


@torch.no_grad()
def check(model: nn.Module, modules: dict, pool: list[Example], pad: int) -> dict[str, float]:
    """Return the share of held-out answers that greedy decoding gets right, over all questions and for each skill."""
    found: dict[str, list[bool]] = {}
    for at in range(0, len(pool), 20):
        *_, batch, right = step_losses(model, modules, pool[at : at + 20], pad, None)
        skills = [skill for example in pool[at : at + 20] for skill in example.skills]
        for skill, good in zip(skills, right_answers(batch, right).tolist(), strict=True):
            found.setdefault(skill, []).append(good)
    each = {skill: round(float(np.mean(good)), 4) for skill, good in sorted(found.items())}
    everything = np.concatenate(list(found.values()))
    return {"heldout_answers": round(float(everything.mean()), 4)} | (each if len(each) > 1 else {})


def monitoring(kinds: dict[str, float]) -> tuple[list[Example], list[Example]]:
    """Make the held-out pages, and scenes of these kinds, that are watched; the evaluation's have other seeds."""
    packer = Packer()
    single = [make_example(seed, packer, heldout=True) for seed in range(910_000, 910_080)]
    scenes = [
        make_example(seed, packer, kind=kind, heldout=True)
        for kind, count in (("note", 20), ("bill", 20), ("shapes", 30), ("heap", 30), ("form", 24))
        for seed in range(920_000, 920_000 + count * (kind in kinds))
    ]
    return single, scenes


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="begin with the weights of a checkpoint folder")
    parser.add_argument("--mix", default=MIX, help="kinds of pages with their weights")
    parser.add_argument("--warm", type=int, default=0, help="first steps, in which only the throw-away heads learn")
    parser.add_argument("--tower-rate", type=float, default=1.0, help="the tower's rate as a factor of the others'")
    parser.add_argument("--start", type=Path, nargs="*", default=[], help="state files of the stages before")
    parser.add_argument("--shared", type=Path, help="the state file that the language model's code was made from")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--frozen", action="store_true", help="leave the tower as it is")
    parser.add_argument("--first-seed", type=int, default=30_000_000, help="of the pages; another one for each stage")
    parser.add_argument("--minutes", type=float, help="stop by the clock; the rate falls over the last two thirds")
    parser.add_argument("--decay", type=int, default=800)
    parser.add_argument("--tower-weight", type=float, default=0.5)
    parser.add_argument("--place-weight", type=float, default=0.3)
    parser.add_argument("--reuse", type=float, default=1.5, help="how often a page is used")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=int, default=50)
    return parser.parse_args()


def main() -> None:
    """Train until the given number of steps; resumes where the state file ends."""
    options = parse()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    ids = special_ids(make_processor().tokenizer)
    model, modules, trainer = build(ids, options)
    state_file, done, seconds = options.work / "joint.pt", 0, 0.0
    if state_file.exists():
        saved = torch.load(state_file, weights_only=True)
        trainer.load(saved["trainer"])
        done, seconds = saved["step"], saved["seconds"]
    else:
        if options.checkpoint:
            trainer.load(recover(options.checkpoint), optimisers=False)
        for path in options.start:
            trainer.load(torch.load(path, weights_only=True)["trainer"], optimisers=False)
        if options.shared:
            translate(trainer, Codebook(), shared_book(options.shared))
    rng, start = np.random.default_rng(done), time.time() - seconds
    mix = {kind: float(weight) for kind, weight in (part.split("=") for part in options.mix.split(","))}
    single, scenes = monitoring(mix)
    pool = feed.ExamplePool(options.first_seed + done * 100, draw=True, mix=mix, capacity=1500, reuse=options.reuse)
    losses, good, total = [], 0, 0
    spent = 0.0
    while done < options.steps and spent < 1.0:
        if options.minutes:
            spent = (time.time() - start) / 60 / options.minutes
        loss, place, own, batch, right = step_losses(model, modules, pool.batch(options.batch, rng), ids["pad"], rng)
        (loss + options.place_weight * place + options.tower_weight * own).backward()
        falling = max(0.05, min((options.steps - done) / options.decay, (1 - spent) * 1.5))
        trainer.step(min(1.0, (done + 1) / 50, falling), HEADS if done < options.warm else ())
        done += 1
        losses.append([loss.item(), place.item(), own.item()])
        counts = right_answers(batch, right)
        good, total = good + int(counts.sum()), total + len(counts)
        if done % options.every == 0:
            entry = {
                "stage": "joint",
                "step": done,
                "pages": pool.drawn,
                "seconds": round(time.time() - start, 1),
                "loss": np.mean(losses, 0).round(4).tolist(),
                "answers": round(good / total, 4),
            }
            entry |= check(model, modules, single, ids["pad"])
            if scenes:
                entry["scenes"] = check(model, modules, scenes, ids["pad"])
            losses, good, total = [], 0, 0
            with (options.work / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
        if done % 100 == 0 or done == options.steps or spent >= 1.0:
            temporary = state_file.with_suffix(".new")
            torch.save({"trainer": trainer.state(), "step": done, "seconds": time.time() - start}, temporary)
            temporary.rename(state_file)


if __name__ == "__main__":
    main()
