"""What fewer visual tokens cost and give: answers, embeddings covered, and the time of prefill.

    python benchmarks/reduction.py accuracy [--bundle starter.edge] [--pages 350] [--work DIR]
    python benchmarks/reduction.py prefill --bundle build/peers/smolvlm-500m/model.edge [--repeat 7]

``accuracy`` asks the starter every question about held-out pages, with each method at each share of tokens; differences
to all tokens are paired by question, with bootstrap intervals. Every setting is kept in the work folder when it is
finished, so an interrupted run goes on. Coverage is the share of the visual tokens' variance within a picture that is
left when each is replaced by the nearest row that the decoder gets. ``prefill`` asks a model of true size about new
pictures, the shares in turns, and compares medians. Each writes its part of benchmarks/results/reduction.json. Drawing
the pages takes the fonts that starter/fonts.py lists.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rounds import measuring  # noqa: E402

import edge_mllm  # noqa: E402
from edge_mllm.answer.budget import image_budget  # noqa: E402
from edge_mllm.machine.fingerprint import fingerprint  # noqa: E402
from edge_mllm.measure.bench.cases import parse_size, sample_picture  # noqa: E402
from edge_mllm.measure.eval.fingerprint import model_sha256  # noqa: E402
from edge_mllm.measure.eval.resampling import bootstrap_interval  # noqa: E402

METHODS = ("uniform", "random", "pool", "diverse", "diverse-tile", "query", "query-tile")
RATIOS = ("3/4", "1/2", "1/4")
TILES = ("blank", "duplicates")
WHOLE = "all"
QUESTION = "What is written on the sign next to the door?"
Asked = Sequence[tuple[Any, ...]]


def settings() -> list[str]:
    """Everything that is compared, all tokens first."""
    return [WHOLE, *(f"{method}:{ratio}" for ratio in RATIOS for method in METHODS), *TILES]


def ask_all(model: edge_mllm.Model, asked: Asked, setting: str) -> dict[str, Any]:
    """Which questions one setting answers exactly, what it kept, and how well that stands for the rest."""
    reduction = None if setting == WHOLE else setting
    right, tokens, covered = [], [], {}
    for image, question, answer, _, _ in asked:
        said = model.generate(question, [image], max_new_tokens=40, reduction=reduction)
        right.append(said.text.strip() == answer)
        tokens.append(said.usage.image_tokens)
        if id(image) not in covered:
            covered[id(image)] = coverage(model, image, question, reduction)
    return {
        "right": [int(each) for each in right],
        "visual_tokens": float(np.mean(tokens)),
        "coverage": float(np.mean(list(covered.values()))),
    }


def coverage(model: edge_mllm.Model, image: Any, question: str, reduction: str | None) -> float:
    """1 - (squared distances to the nearest row the decoder gets) / (those to the mean), over all visual tokens."""
    rows = []
    for wanted in (None, reduction):
        (part,) = model.reader.pictures([image], image_budget("auto", None, wanted))
        part.query = tuple(model.reader.text_ids(question).tolist())
        rows.append(model.pipeline.decoder_rows(part).astype(np.float64))
    whole, kept = rows
    squares = (whole**2).sum(axis=1)[:, None] + (kept**2).sum(axis=1) - 2 * whole @ kept.T
    spread = ((whole - whole.mean(axis=0)) ** 2).sum()
    return float(1 - np.maximum(squares.min(axis=1), 0).sum() / spread)


def accuracy(given: argparse.Namespace) -> dict[str, Any]:
    """The table of one bundle; settings already in the work folder are not asked again."""
    from starter import evaluate

    asked = list(evaluate.questions(given.pages))
    given.work.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    sha256 = model_sha256(given.bundle)
    with edge_mllm.load(given.bundle, engine=given.engine, threads=1, cache_bytes=1 << 29) as model:
        for setting in given.only.split(",") if given.only else settings():
            kept = given.work / f"{sha256[:12]}-{given.engine}-{given.pages}-{setting.replace('/', '_')}.json"
            if not kept.is_file():
                start = time.perf_counter()
                entry = ask_all(model, asked, setting)
                kept.write_text(json.dumps(entry), encoding="utf-8")
                print(setting, sum(entry["right"]) / len(asked), f"{time.perf_counter() - start:.0f} s", flush=True)
            found[setting] = json.loads(kept.read_text(encoding="utf-8"))
    skills = sorted({entry[3] for entry in asked})
    return {
        "engine": given.engine,
        "bundle_sha256": sha256,
        "pages": given.pages,
        "questions": {skill: sum(entry[3] == skill for entry in asked) for skill in skills},
        "settings": {} if given.only else {name: summary(found, name, asked) for name in settings()},
    }


def summary(found: dict[str, dict[str, Any]], name: str, asked: Asked) -> dict[str, Any]:
    """Accuracy of one setting, overall and per skill, with the paired difference to all tokens."""
    entry, whole = found[name], np.array(found[WHOLE]["right"])
    right = np.array(entry["right"])
    skills = np.array([each[3] for each in asked])
    groups = {"overall": np.ones(len(asked), bool)} | {skill: skills == skill for skill in sorted(set(skills))}
    table = {}
    for group, rows in groups.items():
        cell: dict[str, Any] = {"right": float(right[rows].mean())}
        if name != WHOLE:
            gap = right[rows] - whole[rows]
            low, high = bootstrap_interval(gap.tolist())
            cell["points"] = {"value": 100 * float(gap.mean()), "interval_95": [100 * low, 100 * high]}
        table[str(group)] = cell
    kept = {key: entry[key] for key in ("visual_tokens", "coverage")}
    return kept | {"share": entry["visual_tokens"] / found[WHOLE]["visual_tokens"], "accuracy": table}


def prefill(given: argparse.Namespace) -> dict[str, Any]:
    """Medians of prefill and of choosing the tokens, every share of every method in turns over new pictures."""
    names = [WHOLE, *(f"{method}:{ratio}" for ratio in RATIOS for method in given.methods.split(","))]
    table = {}
    for engine in given.engines.split(","):
        with edge_mllm.load(given.bundle, engine=engine, threads=given.threads) as model:
            samples: dict[str, list[dict[str, float]]] = {name: [] for name in names}
            for number in range(given.repeat + 1):
                picture = sample_picture(*parse_size(given.size), number)
                order = names if number % 2 == 0 else names[::-1]
                for name in order:
                    measured = one_prefill(model, picture, None if name == WHOLE else name)
                    if number:  # the first round warms up
                        samples[name].append(measured)
        table[engine] = {name: medians(samples[name], samples[WHOLE]) for name in names}
    return {"bundle": given.bundle.name, "size": given.size, "threads": given.threads, "rounds": given.repeat} | {
        "engines": table
    }


def one_prefill(model: edge_mllm.Model, picture: bytes, reduction: str | None) -> dict[str, float]:
    """One answer of two tokens about a picture; nothing of the prompt may come from the cache."""
    answer = model.generate(QUESTION, [picture], max_new_tokens=2, ignore_eos=True, reduction=reduction)
    if answer.usage.reused_tokens:
        raise SystemExit("the prompt was in the cache; the measurement is worthless")
    return {
        "prefill_s": answer.timings.prefill_s,
        "reduction_s": answer.reduction.seconds if answer.reduction and answer.reduction.seconds else 0.0,
        "visual_tokens": answer.usage.image_tokens,
        "prompt_tokens": answer.usage.prompt_tokens,
    }


def medians(samples: list[dict[str, float]], whole: list[dict[str, float]]) -> dict[str, float]:
    """Of one setting, with the ratio of prefill, choosing included, to that of all tokens."""
    found = {key: statistics.median(each[key] for each in samples) for key in samples[0]}
    full = statistics.median(each["prefill_s"] for each in whole)
    found["share_of_prefill"] = statistics.median(each["prefill_s"] + each["reduction_s"] for each in samples) / full
    return found


def main() -> None:
    """Measure one part and write it into the result file."""
    parser = measuring(__file__, __doc__, repeat=5)
    parser.add_argument("part", choices=("accuracy", "prefill"))
    parser.add_argument("--bundle", type=Path, default=ROOT / "edge_mllm" / "starter.edge")
    parser.add_argument("--engine", default="onnx", help="of accuracy")
    parser.add_argument("--engines", default="gguf,onnx", help="of prefill")
    parser.add_argument("--methods", default="uniform,diverse", help="of prefill")
    parser.add_argument("--pages", type=int, default=350)
    parser.add_argument("--only", default="", help="ask these settings and write no result file")
    parser.add_argument("--size", default="1024x768")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "reduction")
    given = parser.parse_args()
    measured = (accuracy if given.part == "accuracy" else prefill)(given)
    if given.only:
        return
    result = json.loads(given.out.read_text(encoding="utf-8")) if given.out.is_file() else {}
    date = datetime.now(UTC).isoformat(timespec="seconds")
    result[given.part] = {"date": date, "machine": asdict(fingerprint(peaks=False)), **measured}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
