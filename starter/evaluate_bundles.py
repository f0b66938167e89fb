"""Ask checkpoint (bf16) and both 4-bit bundles the same held-out questions, the checkpoint by the thumbnail alone too.

    python -m starter.evaluate_bundles --bundle edge_mllm/starter.edge --pages 400

Writes starter/results/accuracy.json: accuracy per skill (exact match, case included) for every run, and for each
bundle the paired difference to the checkpoint with a bootstrap interval.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import edge_mllm
from starter import evaluate

HERE = Path(__file__).parent
VIEWS = ("tiles", "thumbnail")
Asked = list[tuple[Any, ...]]


def main() -> None:
    """Run every combination and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=HERE / "checkpoint")
    parser.add_argument("--bundle", type=Path, default=HERE.parent / "edge_mllm" / "starter.edge")
    parser.add_argument("--pages", type=int, default=400)
    parser.add_argument("--scenes", type=int, default=0, help="scenes of each kind")
    parser.add_argument("--known-pairs", type=int, default=0, help="ask about so many pages of known pairs instead")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "accuracy.json")
    options = parser.parse_args()
    if options.known_pairs:
        options.pages = options.scenes = 0
    asked = [*evaluate.questions(options.pages), *evaluate.scene_questions(options.scenes)]
    asked += evaluate.known_pairs(options.known_pairs)
    model, processor = evaluate.load(options.checkpoint, torch.bfloat16)
    right: dict[tuple[str, str], np.ndarray] = {}
    for view in VIEWS:
        said = evaluate.answers(model, processor, asked, view == "tiles")
        right["checkpoint bf16", view] = matches(asked, said)
    del model
    for engine in ("onnx", "gguf"):
        with edge_mllm.load(options.bundle, engine=engine) as bundle:
            name = f"bundle {engine} {bundle.spec.parts[f'decoder_{engine}'].precision}"
            right[name, "tiles"] = matches(asked, [say(bundle, *entry[:2]) for entry in asked])
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    result = {"date": today, "pages": options.pages, "scenes_of_each_kind": options.scenes}
    result |= {"known_pairs": options.known_pairs, **summary(asked, right)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    for run in result["runs"]:
        print(run["name"], run["view"], run["accuracy"])


def say(bundle: edge_mllm.Model, image: Any, question: str) -> str:
    """One greedy answer."""
    return bundle.generate(question, images=[image], max_new_tokens=40).text.strip()


def matches(asked: Asked, said: list[str]) -> np.ndarray:
    """Bool [questions]: which answers are right."""
    return np.array([evaluate.is_right(entry[3], entry[2], text) for entry, text in zip(asked, said, strict=True)])


def summary(asked: Asked, right: dict[tuple[str, str], np.ndarray]) -> dict[str, Any]:
    """The result file's content."""
    by_skill: dict[str, list[int]] = defaultdict(list)
    for number, entry in enumerate(asked):
        by_skill[entry[3]].append(number)
    pick: dict[str, Callable[[np.ndarray], float]] = {
        skill: (lambda found, rows=rows: round(float(found[rows].mean()), 4)) for skill, rows in by_skill.items()
    }
    runs = []
    for (name, view), found in right.items():
        accuracy = {skill: chosen(found) for skill, chosen in pick.items()} | {"overall": round(float(found.mean()), 4)}
        run: dict[str, Any] = {"name": name, "view": view, "accuracy": accuracy}
        if name != "checkpoint bf16":
            run["difference_to_checkpoint"] = difference(found, right["checkpoint bf16", view])
        runs.append(run)
    return {
        "first_seed": evaluate.FIRST_SEED,
        "first_scene": evaluate.FIRST_SCENE,
        "questions": len(asked),
        "questions_per_skill": {skill: len(rows) for skill, rows in by_skill.items()},
        "skills": list(by_skill),
        "runs": runs,
    }


def difference(found: np.ndarray, reference: np.ndarray, draws: int = 2000) -> dict[str, Any]:
    """Paired difference of accuracy with a 95 % bootstrap interval over questions."""
    gap = found.astype(np.float64) - reference
    rng = np.random.default_rng(0)
    means = gap[rng.integers(0, len(gap), (draws, len(gap)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": round(float(gap.mean()), 4), "interval_95": [round(float(low), 4), round(float(high), 4)]}


if __name__ == "__main__":
    main()
