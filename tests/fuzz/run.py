"""``make fuzz``: seeded cases in processes that are watched; the result goes to benchmarks/results/fuzz.json.

``python -m fuzz.run --cases 10000``; stops early with ``--minutes``, and says then how many cases were run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fuzz.cases import case_of
from fuzz.sources import make_sources
from fuzz.watched import Reply, Watched

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
RESULT = ROOT / "benchmarks" / "results" / "fuzz.json"
GOOD = ("answered", "refused")


@dataclass
class Found:
    """What came of one case."""

    number: int
    kind: str
    outcome: str
    text: str = ""
    seconds: float = 0.0
    peak_bytes: int = field(default=0)


def worker(sources: Path, work: Path, seed: int) -> Watched:
    """A process that runs the case whose number it is told."""
    places = [TESTS, ROOT, ROOT / "export", ROOT / "quant"]
    environment = {"PYTHONPATH": os.pathsep.join(map(str, places)), "OMP_NUM_THREADS": "1"}
    return Watched([sys.executable, "-m", "fuzz.worker", str(sources), str(work), str(seed)], environment)


def found_of(number: int, reply: Reply) -> Found:
    """What came of a case."""
    if reply.line is None:
        return Found(number, case_of(number), reply.outcome, reply.text, reply.seconds, reply.peak_bytes)
    told = json.loads(reply.line)
    return Found(number, case_of(number), told["outcome"], told["text"], told["seconds"], reply.peak_bytes)


def run_cases(sources: Path, numbers: list[int], *, seed: int, workers: int, minutes: float) -> list[Found]:
    """Run cases in several processes, in order, until all are done or the time is over."""
    waiting, found, lock = iter(numbers), [], threading.Lock()
    end = time.monotonic() + 60 * minutes

    def work(folder: Path) -> None:
        process = worker(sources, folder, seed)
        try:
            for number in _taken(waiting, lock, end):
                result = found_of(number, process.ask(str(number)))
                with lock:
                    found.append(result)
                    if result.outcome not in GOOD:
                        print(result, flush=True)
        finally:
            process.close()

    # Bundles are linked into the folders of cases, so these lie beside the sources.
    with tempfile.TemporaryDirectory(dir=sources.parent) as scratch:
        threads = [threading.Thread(target=work, args=(Path(scratch) / str(index),)) for index in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sorted(found, key=lambda each: each.number)


def _taken(waiting: Iterator[int], lock: threading.Lock, end: float) -> Iterator[int]:
    while time.monotonic() < end:
        with lock:
            number = next(waiting, None)
        if number is None:
            return
        yield number


def summary(found: list[Found], *, seed: int, seconds: float) -> dict[str, object]:
    """What goes to the result file."""
    kinds = {
        kind: Counter(each.outcome for each in found if each.kind == kind) for kind in {each.kind for each in found}
    }
    return {
        "seed": seed,
        "cases": len(found),
        "minutes": round(seconds / 60, 1),
        "outcomes": dict(Counter(each.outcome for each in found)),
        "kinds": {kind: dict(counts) for kind, counts in sorted(kinds.items())},
        "slowest_s": max((each.seconds for each in found), default=0.0),
        "largest_peak_bytes": max((each.peak_bytes for each in found), default=0),
        "failures": [asdict(each) for each in found if each.outcome not in GOOD],
    }


def run_again(result: dict[str, Any], sources: Path) -> dict[str, Any]:
    """A result with its failures run again; ``failed_before`` keeps what they were."""
    before = result["failures"]
    found = run_cases(sources, [each["number"] for each in before], seed=result["seed"], workers=1, minutes=60)
    for old, new in zip(before, found, strict=True):
        for counts in (result["outcomes"], result["kinds"][old["kind"]]):
            counts[old["outcome"]] -= 1
            counts[new.outcome] = counts.get(new.outcome, 0) + 1
    cleaned = {kind: {k: n for k, n in counts.items() if n} for kind, counts in result["kinds"].items()}
    return result | {
        "outcomes": {name: count for name, count in result["outcomes"].items() if count},
        "kinds": cleaned,
        "failures": [asdict(each) for each in found if each.outcome not in GOOD],
        "failed_before": [{name: each[name] for name in ("number", "kind", "outcome")} for each in before],
    }


def main() -> None:
    """Run and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--only", help="a kind of case")
    parser.add_argument("--sources", type=Path, default=ROOT / "build" / "fuzz" / "sources")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--again", type=Path, help="a result whose failures are run again, after they were mended")
    arguments = parser.parse_args()
    sources = make_sources(arguments.sources)
    numbers = list(range(arguments.first, arguments.first + arguments.cases))
    numbers = [number for number in numbers if arguments.only in (None, case_of(number))]
    if arguments.again is not None:
        result = run_again(json.loads(arguments.again.read_text("utf-8")), sources)
        arguments.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
        sys.exit(1 if result["failures"] else 0)
    start = time.perf_counter()
    options = {"seed": arguments.seed, "workers": arguments.workers, "minutes": arguments.minutes}
    found = run_cases(sources, numbers, **options)
    result = summary(found, seed=arguments.seed, seconds=time.perf_counter() - start)
    arguments.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"{len(found)} cases: {result['outcomes']}")
    sys.exit(1 if result["failures"] else 0)


if __name__ == "__main__":
    main()
