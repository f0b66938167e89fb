"""Ways of doing the same thing, measured in turns, and what every such result says of its machine and bundle."""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from edge_mllm.machine.fingerprint import fingerprint, model_files
from edge_mllm.session.files import open_bundle

Sample = TypeVar("Sample")
RESULTS = Path(__file__).resolve().parent / "results"


def in_turns(ways: Mapping[str, Callable[[], Sample]], repeat: int, *, warmup: int = 1) -> dict[str, list[Sample]]:
    """What every way returns in ``repeat`` rounds; their order turns around from round to round.

    Args:
        ways: Called without arguments.
        repeat: Rounds that count.
        warmup: Rounds before them that do not.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in ways}
    for number in range(warmup + repeat):
        for name in ways if number % 2 else reversed(list(ways)):
            found = ways[name]()
            if number >= warmup:
                samples[name].append(found)
    return samples


def own_process(*arguments: object) -> Any:
    """What Python prints as JSON in a process of its own: memory is counted from its start."""
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def measuring(program: str, about: str | None, *, repeat: int | None = None) -> argparse.ArgumentParser:
    """The options of a measurement: threads, rounds where it has some, and the file of its result.

    Args:
        program: The program's file; its result has the same name.
        about: Its docstring.
        repeat: Rounds where nothing else is asked for.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / f"{Path(program).stem}.json")
    if repeat is not None:
        parser.add_argument("--repeat", type=int, default=repeat)
    return parser


def when_and_where(stamp: str = "date", *, threads: int | None = None, peaks: bool = False) -> dict[str, Any]:
    """When and on which machine a result is made; ``stamp`` names the time, ``peaks`` measures the machine's limits."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {stamp: now, "machine": dataclasses.asdict(fingerprint(threads=threads, peaks=peaks))}


def circumstances(bundle: Path, *, threads: int, repeat: int, peaks: bool = True) -> dict[str, Any]:
    """When, of which bundle, on which machine, how often; ``peaks`` measures the machine's limits too."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": open_bundle(bundle, check_hashes=False).spec.source.id,
        "bundle_sha256": model_files(bundle).sha256,
        "threads": threads,
        "repeat": repeat,
        "machine": dataclasses.asdict(fingerprint(threads=threads, peaks=peaks)),
    }
