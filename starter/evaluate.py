"""Ask the checkpoint about held-out pages and scenes.

Fonts, words, numbers, prices, pairs of colour and shape, and some layouts are those that training never sees.
`questions()` yields the same questions about pages of one thing to anyone who evaluates something made from the
checkpoint, `scene_questions()` those about scenes, and `is_right()` tells which answers count.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import hashlib
import itertools
import json
import platform
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import PIL
import torch
import transformers
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from . import layouts, scenes
from .pages import SHAPES, Page
from .palette import COLOURS

HERE = Path(__file__).parent
FIRST_SEED, FIRST_SCENE, FIRST_KNOWN = 500_000, 650_000, 660_000
NEAR = 5
MAIN_SKILLS = ("word", "number", "price")


Asked = Iterator[tuple[Image.Image, str, str, str, str]]
"""(image, question, answer, skill, layout)"""


def questions(pages: int, first_seed: int = FIRST_SEED) -> Asked:
    """Yield every question about this many held-out pages."""
    return _about(layouts.make_page(seed, heldout=True) for seed in range(first_seed, first_seed + pages))


def scene_questions(count: int, first_seed: int = FIRST_SCENE) -> Asked:
    """Yield every question about this many held-out scenes of each kind."""
    seeds = range(first_seed, first_seed + count)
    return _about(scenes.make_scene(seed, kind, heldout=True) for kind in scenes.KINDS for seed in seeds)


def known_pairs(count: int) -> Asked:
    """Yield every question about pages of their own with shapes in colours that training does show them in.

    What is lost between these and the held-out pairs is lost to the pair being new, not to seeing. Shapes and colours
    that are there for training alone are passed over.
    """
    drawn = (scenes.make_scene(seed, "shapes") for seed in itertools.count(FIRST_KNOWN))
    asked = (page for page in drawn if all(mark.shape in SHAPES and mark.colour in COLOURS for mark in page.marks))
    return _about(itertools.islice(asked, count))


def _about(drawn: Iterable[Page]) -> Asked:
    for page in drawn:
        for question in page.questions:
            yield page.image, question.text, question.answer, question.skill, page.layout


def is_right(skill: str, answer: str, said: str) -> bool:
    """Tell whether an answer counts: the expected text, or a point at most `NEAR` per cent off, still on its button."""
    if skill != "point" or not re.fullmatch(r"\d\d,\d\d", said):
        return said == answer
    return all(abs(int(a) - int(b)) <= NEAR for a, b in zip(answer.split(","), said.split(","), strict=True))


def sample(folder: Path | None = None) -> Asked:
    """Yield the same for the few held-out pages that are kept as files, which need no fonts."""
    folder = folder or HERE / "heldout"
    for entry in json.loads((folder / "questions.json").read_text()):
        image = Image.open(folder / entry["image"]).convert("RGB")
        yield image, entry["question"], entry["answer"], entry["skill"], entry["layout"]


def prompt(processor, question: str, image: bool = True) -> str:
    """Return the chat text of one question about one picture."""
    content = [{"type": "image"}] if image else []
    content.append({"type": "text", "text": question})
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


@torch.inference_mode()
def answers(model, processor, asked: list[tuple], split: bool, batch: int = 48) -> list[str]:
    """Answer questions greedily, a batch at a time; without `split` the model sees the thumbnail alone."""
    said: list[str] = []
    for at in range(0, len(asked), batch):
        part = asked[at : at + batch]
        inputs = processor(
            text=[prompt(processor, question) for _, question, *_ in part],
            images=[[image] for image, *_ in part],
            padding=True,
            return_tensors="pt",
            do_image_splitting=split,
        )
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        made = model.generate(**inputs, max_new_tokens=40, do_sample=False)
        fresh = made[:, inputs["input_ids"].shape[1] :]
        said += [text.strip() for text in processor.batch_decode(fresh, skip_special_tokens=True)]
    return said


def score(asked: list[tuple], said: list[str]) -> dict[str, dict]:
    """Count right answers per skill and per layout."""
    table: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    for (_, _, answer, skill, layout), text in zip(asked, said, strict=True):
        for key in (f"skill:{skill}", f"layout:{layout}", "all", *(("main",) if skill in MAIN_SKILLS else ())):
            table[key][0] += is_right(skill, answer, text)
            table[key][1] += text.lower() == answer.lower()
            table[key][2] += 1
    return {
        key: {"right": round(good / count, 4), "any_case": round(loose / count, 4), "questions": count}
        for key, (good, loose, count) in sorted(table.items())
    }


def load(folder: Path, dtype: torch.dtype):
    """Load a checkpoint with its processor."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).eval()
    return model, AutoProcessor.from_pretrained(folder, backend="pil")


def main() -> None:
    """Evaluate and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=HERE / "checkpoint")
    parser.add_argument("--pages", type=int, default=400)
    parser.add_argument("--scenes", type=int, default=80, help="scenes of each kind")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="of the pages; scenes have their own")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "checkpoint.json")
    parser.add_argument("--misses", type=int, default=0, help="print this many wrong answers")
    options = parser.parse_args()
    model, processor = load(options.checkpoint, getattr(torch, options.dtype))
    asked = [*questions(options.pages, options.first_seed), *scene_questions(options.scenes)]
    results = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "pages": options.pages,
        "scenes_of_each_kind": options.scenes,
        "first_seed": options.first_seed,
        "questions": len(asked),
        "dtype": options.dtype,
        "model_sha256": hashlib.sha256((options.checkpoint / "model.safetensors").read_bytes()).hexdigest(),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "pillow": PIL.__version__,
            "python": platform.python_version(),
        },
    }
    for name, split in (("tiles", True), ("thumbnail_only", False)):
        said = answers(model, processor, asked, split)
        results[name] = score(asked, said)
        if split:
            wrong = [(a[1], a[2], text) for a, text in zip(asked, said, strict=True) if not is_right(a[3], a[2], text)]
            print(*wrong[: options.misses], sep="\n")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results["tiles"], indent=1))


if __name__ == "__main__":
    main()
