"""Every peer on the same weights, pictures, token counts and threads, in turns: one JSON and one table.

    python benchmarks/peers/run_all.py --shape smolvlm-500m

Weights are random in the true shape, so answers mean nothing and nothing is said about quality. Every peer is a warm
process of its own; each round asks every peer once about a picture that nobody saw before, then once more about the
same picture, and the order turns around from round to round. All other peers are stopped meanwhile. Medians and their
ratios to the first row go to benchmarks/results/peers_SHAPE.json. Environments and model files stay in build/peers, so
that the same command again measures at once; ``--prepare`` makes them and measures nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from material import BUILD, ROOT, checkpoint_directory, export_bundle_once, picture_file, python_of
from no_amx import refuse_amx
from processes import PeerFailedError, PeerProcess, available_bytes, prepare
from protocol import Job, Question, Reply
from roster import ENTRIES, LEFT_OUT, Entry, choose
from table import print_table, ratios

from edge_mllm.machine.fingerprint import fingerprint
from edge_mllm.measure.bench.cases import parse_size
from edge_mllm.session.files import open_bundle

FIRST, SECOND = "What is written on the sign next to the door?", "How many people are there in front of it?"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the comparison is run."""

    name: str
    checkpoint: Path
    bundle: Path
    work: Path
    threads: int
    size: tuple[int, int]
    answer_tokens: int
    prompt_tokens: int
    visual_tokens: int

    def job(self, entry: Entry) -> Job:
        """What an entry's process is told."""
        out = self.work / entry.name.replace(" ", "-")
        context = self.prompt_tokens + self.answer_tokens + 256
        out.mkdir(parents=True, exist_ok=True)
        return Job(
            str(self.checkpoint), str(self.bundle), str(out), self.threads, entry.variant, -(-context // 256) * 256
        )

    def question(self, text: str, number: int) -> Question:
        """A question about picture ``number``."""
        picture = str(picture_file(self.work, self.size, number))
        return Question(picture, text, self.answer_tokens, self.prompt_tokens)


def main() -> None:
    """Prepare, measure, write."""
    given = _arguments()
    if given.no_amx:
        refuse_amx()
    entries = choose((given.peers or "").split(","))
    settings = _settings(given, entries)
    could_not: dict[str, str] = dict(LEFT_OUT)
    running = _start(entries, settings, could_not, given)
    if given.prepare:
        sys.exit(_close(running, could_not))
    deadline = time.monotonic() + given.minutes * 60
    replies: dict[str, list[dict[str, Reply | None]]] = {name: [] for name in running}
    try:
        for number in range(given.warmup + given.repeat):
            measured = number >= given.warmup
            if number > given.warmup and time.monotonic() > deadline:
                print(f"time is up after {number - given.warmup} rounds", file=sys.stderr)
                break
            names = list(running) if number % 2 == 0 else list(reversed(running))
            for name in names:
                print(f"round {number + 1}: {name}", file=sys.stderr)
                try:
                    found = _ask_twice(running[name], settings, number)
                except PeerFailedError as error:
                    could_not[name] = str(error)
                    running.pop(name).close()
                    replies.pop(name)
                    continue
                if measured:
                    replies[name].append(found)
    finally:
        for process in running.values():
            process.close()
    result = _result(given, settings, running, replies) | {"could_not": could_not}
    file = f"peers_{settings.name}{'_no_amx' if given.no_amx else ''}.json"
    out = Path(given.out or ROOT / "benchmarks" / "results" / file)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print_table(result)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--shape", help="random weights in this published shape")
    source.add_argument("--checkpoint", help="a checkpoint directory")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", default="1024x768")
    parser.add_argument("--answer-tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60, help="no further round begins after this time")
    parser.add_argument("--prepare-minutes", type=float, default=30, help="the most a peer may take to make its files")
    parser.add_argument(
        "--prepare", action="store_true", help="make environments and model files, start every peer once"
    )
    parser.add_argument("--peers", help="names or beginnings of names, with commas between; default: all")
    parser.add_argument("--no-amx", action="store_true", help="as on a processor without AMX, for every peer")
    parser.add_argument("--out", help="another result file")
    return parser.parse_args()


def _settings(given: argparse.Namespace, entries: list[Entry]) -> Settings:
    import edge_mllm

    name = given.shape or Path(given.checkpoint).resolve().name
    work = BUILD / name
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoint_directory(given.shape, given.checkpoint, work)
    source = f"shape:{given.shape}" if given.shape else str(checkpoint)
    words = {word for entry in entries for word in entry.variant.split("+")}
    bundle = export_bundle_once(checkpoint, work, source, words)
    size = parse_size(given.size)
    with edge_mllm.load(bundle, threads=given.threads) as model:
        ids = model.prompt_ids(FIRST, [picture_file(work, size, 0)])
        visual = int((ids == model.spec.prompt.image_token_id).sum())
    return Settings(
        name=name,
        checkpoint=checkpoint,
        bundle=bundle,
        work=work,
        threads=given.threads,
        size=size,
        answer_tokens=given.answer_tokens,
        prompt_tokens=len(ids),
        visual_tokens=visual,
    )


def _close(running: dict[str, PeerProcess], could_not: dict[str, str]) -> str | None:
    for name, process in running.items():
        print(f"ready: {name} (started in {process.start_s:.1f} s)")
        process.close()
    for name, reason in could_not.items():
        print(f"not run: {name}: {reason}")
    return None if running else "no peer came up"


def _start(
    entries: list[Entry], settings: Settings, could_not: dict[str, str], given: argparse.Namespace
) -> dict[str, PeerProcess]:
    """Peers that came up; for the others the reason goes to ``could_not``."""
    family = open_bundle(settings.bundle, check_hashes=False).spec.source.family
    weights = sum(file.stat().st_size for file in settings.checkpoint.glob("*.safetensors"))
    running = {}
    for entry in entries:
        if entry.families is not None and family not in entry.families:
            could_not[entry.name] = f"does not take the family {family}{entry.others and f': {entry.others}'}"
            continue
        needed, free = entry.memory * weights, available_bytes()
        if needed > free:
            could_not[entry.name] = f"needs about {needed / 1e9:.0f} GB beside the others; {free / 1e9:.0f} were free"
            continue
        print(f"starting {entry.name}", file=sys.stderr)
        job = settings.job(entry)
        done = Path(job.out) / "prepared"
        try:
            python = python_of(entry.environment)
            if not done.exists():
                prepare(python, entry.script, job, given.prepare_minutes * 60)
                done.touch()
            running[entry.name] = PeerProcess(python, entry.script, job)
        except PeerFailedError as error:
            could_not[entry.name] = str(error)
            print(f"{entry.name}: {error}", file=sys.stderr)
    return running


def _ask_twice(process: PeerProcess, settings: Settings, number: int) -> dict[str, Reply | None]:
    first = process.ask(settings.question(FIRST, number))
    return {"first": first, "second": process.ask(settings.question(SECOND, number), again=True)}


def _result(
    given: argparse.Namespace,
    settings: Settings,
    running: dict[str, PeerProcess],
    replies: dict[str, list[dict[str, Reply | None]]],
) -> dict[str, Any]:
    peers = {name: _entry(process, replies[name]) for name, process in running.items()}
    base = next((entry.name for entry in ENTRIES if entry.name in peers), None)
    for peer in peers.values():
        visual = peer["visual_tokens"]
        if visual is not None and visual != settings.visual_tokens:
            peer["differs"] = f"{visual} visual tokens where {base} has {settings.visual_tokens}"
        if base is not None:
            peer["ratios"] = ratios(peer["medians"], peers[base]["medians"])
    return {
        "schema": "edge-mllm-peers/1",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": settings.name,
        "random_weights": given.shape is not None,
        "threads": settings.threads,
        "amx_refused": given.no_amx,
        "picture": given.size,
        "prompt_tokens": settings.prompt_tokens,
        "visual_tokens": settings.visual_tokens,
        "answer_tokens": settings.answer_tokens,
        "warmup": given.warmup,
        "repeat": max(map(len, replies.values()), default=0),
        "machine": dataclasses.asdict(fingerprint(threads=settings.threads)),
        "ratios_to": base,
        "peers": peers,
    }


def _entry(process: PeerProcess, rounds: list[dict[str, Reply | None]]) -> dict[str, Any]:
    samples = [
        {key: None if reply is None else dataclasses.asdict(reply) for key, reply in each.items()} for each in rounds
    ]
    firsts = [reply for each in rounds if (reply := each["first"]) is not None]
    seconds = [reply.first_token_s for each in rounds if (reply := each["second"]) is not None]
    medians = {
        "first_token_s": _median([reply.first_token_s for reply in firsts]),
        "vision_s": _median([reply.vision_s for reply in firsts]),
        "prefill_tps": _median([reply.prefill_s and reply.prompt_tokens / reply.prefill_s for reply in firsts]),
        "decode_tps": _median([(reply.answer_tokens - 1) / reply.decode_s for reply in firsts]),
        "second_first_token_s": _median(seconds),
        "peak_resident_bytes": process.memory.resident,
        "peak_anonymous_bytes": process.memory.anonymous,
        "disk_bytes": sum(Path(file).stat().st_size for file in process.files),
    }
    return {
        **process.about,
        "start_s": process.start_s,
        "prompt_tokens": firsts[-1].prompt_tokens,
        "visual_tokens": firsts[-1].visual_tokens,
        "medians": medians,
        "samples": samples,
    }


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known and len(known) == len(values) else None


if __name__ == "__main__":
    main()
