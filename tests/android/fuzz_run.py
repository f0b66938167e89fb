"""Mutated bundles through one JVM that is watched: ``python -m android.fuzz_run`` writes benchmarks/results.

Each is opened, asked about one picture, and closed. Good ends are an answer and one line of the library's own.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from android.families import exported
from android.fuzzed_bundles import SHARES, Fuzzed
from fuzz.cases import case_of
from fuzz.watched import Watched

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "edge_mllm" / "starter.edge"
RESULT = ROOT / "benchmarks" / "results" / "android_fuzz.json"
CORE = ROOT / "android_demo" / "core.sh"
FAMILIES = ("internvl", "qwen2_5_vl", "llava_onevision")
"""Beside the starter's: an aspect grid with weights for prompts, patches with M-RoPE, stitched tiles with a newline."""
JAVA = "-Xmx512m -Xss1m -XX:MaxDirectMemorySize=512m"
"""The heap of a large app on a phone, and a stack as small as there."""
GOOD = ("answered", "refused")
_FOREIGN = re.compile(r"java\.|\wException|OutOfMemory|StackOverflow|OutOfBounds|NullPointer|cannot be cast")


@dataclass(frozen=True)
class Found:
    """What came of one case."""

    number: int
    kind: str
    outcome: str
    text: str = ""
    seconds: float = 0.0


def core_process() -> Watched:
    """A JVM that answers lines."""
    return Watched([CORE, "lines"], {"EDGE_MLLM_JAVA": JAVA})


def ask(core: Watched, question: dict[str, Any]) -> tuple[str, str]:
    """``answered``, ``refused`` or what must not be, with a text."""
    reply = core.ask(json.dumps(question))
    return (reply.outcome, reply.text) if reply.line is None else outcome_of(json.loads(reply.line))


def outcome_of(reply: dict[str, Any]) -> tuple[str, str]:
    """What a reply of core counts as, with its text."""
    if "error" not in reply:
        return ("answered", "") if "text" in reply else ("nothing", str(reply)[:200])
    text = reply["error"]
    if text.startswith("a fault in core"):
        return "fault", " ".join(text.split())[:400]
    if not text or "\n" in text or "\r" in text or len(text) > 2000:
        return "several lines", text[:400]
    return ("foreign", text[:400]) if _FOREIGN.search(text) else ("refused", text[:200])


def run_cases(sources: list[Path], numbers: list[int], *, seed: int, picture: Path) -> list[Found]:
    """Run cases in order in one JVM."""
    fuzzed, core, found = Fuzzed(sources, seed), core_process(), []
    # Bundles are linked into the folders of cases, so these lie beside the sources.
    with tempfile.TemporaryDirectory(dir=sources[0].parent) as scratch:
        for number in numbers:
            place = Path(scratch) / "case"
            shutil.rmtree(place, ignore_errors=True)
            fuzzed.make(number, place)
            question = {"do": "once", "bundle": str(place), "images": [str(picture)], "prompt": "What is this?",
                        "max_new_tokens": 3, "low_memory": number % 4 == 0}  # fmt: skip
            start = time.perf_counter()
            outcome, text = ask(core, question)
            seconds = round(time.perf_counter() - start, 3)
            found.append(Found(number, case_of(number, SHARES), outcome, text.replace(scratch, ""), seconds))
            if outcome not in GOOD:
                print(found[-1], flush=True)
        core.close()
    return found


def summary(found: list[Found], *, seed: int, sources: list[Path], seconds: float) -> dict[str, Any]:
    """What goes to the result file."""
    kinds: dict[str, Counter[str]] = {}
    for each in sorted(found, key=lambda each: each.kind):
        kinds.setdefault(each.kind, Counter())[each.outcome] += 1
    return {
        "seed": seed,
        "cases": len(found),
        "bundles": [source.stem for source in sources],
        "heap": JAVA,
        "minutes": round(seconds / 60, 1),
        "outcomes": dict(Counter(each.outcome for each in found)),
        "kinds": {kind: dict(counts) for kind, counts in kinds.items()},
        "slowest_s": max((each.seconds for each in found), default=0.0),
        "failures": [asdict(each) for each in found if each.outcome not in GOOD],
    }


def copied(source: Path, out: Path) -> Path:
    """A bundle in a folder that cases can be linked from."""
    if not out.exists():
        shutil.copytree(source, out)
    return out


def picture_at(file: Path) -> Path:
    """A small picture that is longer than it is high."""
    if not file.exists():
        import numpy as np
        from PIL import Image

        pixels = np.random.default_rng(5).integers(0, 256, (90, 200, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    return file


def main() -> None:
    """Run and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=19)
    parser.add_argument("--starter", action="store_true", help="that alone; the others need the export side")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fuzz" / "android")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    families = () if arguments.starter else FAMILIES
    sources = [copied(STARTER, arguments.work / STARTER.name), *(exported(name, arguments.work) for name in families)]
    numbers = list(range(arguments.first, arguments.first + arguments.cases))
    start = time.perf_counter()
    found = run_cases(sources, numbers, seed=arguments.seed, picture=picture_at(arguments.work / "picture.png"))
    result = summary(found, seed=arguments.seed, sources=sources, seconds=time.perf_counter() - start)
    before = json.loads(arguments.out.read_text("utf-8")) if arguments.out.exists() else {}
    failed = before.get("failed_before") or [
        {name: each[name] for name in ("number", "kind", "outcome", "text")} for each in before.get("failures", [])
    ]
    result |= {"failed_before": failed} if failed else {}
    arguments.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"{len(found)} cases: {result['outcomes']}")
    sys.exit(1 if result["failures"] else 0)


if __name__ == "__main__":
    main()
