"""Stage 2: teach the language model to read the code of visual tokens and to answer; no picture is drawn."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from . import charmap, feed
from .codes import DEVIATION, Codebook
from .dialogs import collate
from .make_tokenizer import make_processor, special_ids
from .model import COUNTED, HIDDEN, answers_of, fast_attention, make_config, make_model, text_loss
from .optim import Trainer


def coded(book: Codebook, cells: torch.Tensor, spoil: float) -> torch.Tensor:
    """Return the code of visual tokens with some characters misread and some noise, as a real tower would err."""
    wrong = torch.randint(1, charmap.CLASSES, cells.shape)
    cells = torch.where((cells > 0) & (torch.rand(cells.shape) < spoil), wrong, cells)
    ideal = book.embed(cells)
    return ideal + torch.randn_like(ideal) * (DEVIATION * 0.3)


def shared_book(state_file: Path | None) -> Codebook:
    """Return the code, with a language model's own character embeddings in it where a state file is given."""
    book = Codebook()
    if state_file:
        table = torch.load(state_file, weights_only=True)["trainer"]["weights"]["text.embed_tokens.weight"]
        tokenizer = make_processor().tokenizer
        ids = [tokenizer.encode(char, add_special_tokens=False)[0] for char in charmap.CHARS]
        book.share(table[ids])
    return book


def right_answers(batch: dict, right: torch.Tensor) -> torch.Tensor:
    """Tell for every answer, in order, whether its tokens are all right, given the right tokens before them."""
    group = answers_of(batch["labels"])
    wrong = torch.zeros(int(group.max()) + 1).index_add_(0, group, (~right).float())
    return wrong == 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--decay", type=int, default=1000)
    parser.add_argument("--spoil", type=float, default=0.02)
    parser.add_argument("--start", type=Path, help="begin with the weights of another state file")
    parser.add_argument("--shared", type=Path, help="state file whose character embeddings are part of the code")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Train until the given number of steps; resumes where the state file ends."""
    options = parse()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    ids = special_ids(make_processor().tokenizer)
    model = make_model(make_config(ids))
    fast_attention(model)
    counter = torch.nn.Linear(HIDDEN, COUNTED)
    trainer = Trainer({"text": model.model.text_model, "counter": counter}, options.rate)
    model.lm_head.to(torch.bfloat16)
    model.lm_head.weight = model.model.text_model.embed_tokens.weight
    state_file, done, seconds = options.work / "text.pt", 0, 0.0
    if state_file.exists():
        saved = torch.load(state_file, weights_only=True)
        trainer.load(saved["trainer"])
        done, seconds = saved["step"], saved["seconds"]
    elif options.start:
        trainer.load(torch.load(options.start, weights_only=True)["trainer"], optimisers=False)
    book, rng, start = shared_book(options.shared), np.random.default_rng(done), time.time() - seconds
    torch.manual_seed(done)
    pool = feed.ExamplePool(20_000_000 + done * 100, draw=False)
    losses, good, total = [], 0, 0
    while done < options.steps:
        batch = collate(pool.batch(options.batch, rng), ids["pad"])
        visual = coded(book, batch["cells"], options.spoil).flatten(0, 1)
        loss, place, right = text_loss(model, batch, visual, counter)
        (loss + 0.3 * place).backward()
        trainer.step(min(1.0, (done + 1) / 100, max(0.1, (options.steps - done) / options.decay)))
        done += 1
        losses.append(loss.item())
        counts = right_answers(batch, right)
        good, total = good + int(counts.sum()), total + len(counts)
        if done % 50 == 0:
            entry = {
                "stage": "text",
                "step": done,
                "pages": pool.drawn,
                "seconds": round(time.time() - start, 1),
                "loss": round(float(np.mean(losses)), 4),
                "answers": round(good / total, 4),
            }
            losses, good, total = [], 0, 0
            with (options.work / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
        if done % 250 == 0 or done == options.steps:
            temporary = state_file.with_suffix(".new")
            torch.save({"trainer": trainer.state(), "step": done, "seconds": time.time() - start}, temporary)
            temporary.rename(state_file)


if __name__ == "__main__":
    main()
