"""Seconds to the first token, and what is left of them when something was computed before.

    python benchmarks/first_token.py --bundle build/peers/smolvlm-500m/model.edge --libmtmd f16,q8_0

Every round makes pictures nobody saw and starts two processes on them, one after the other. The first asks about a
new picture, asks again about the same one, asks about one that was prepared in the background, and saves a chat. The
second, which never loads the tower, asks about the first picture (its embeddings lie on disk) and goes on with the
saved chat. ``--libmtmd`` asks llama.cpp's own multimodal library in turns with them about the same picture, with the
same decoder file and the mmproj files beside the bundle. Medians and ratios go to benchmarks/results/first_token.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from edge_mllm import GenerateOptions

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "peers")]

FIRST, SECOND = "What is written on the sign next to the door?", "How many people are there in front of it?"
NEW_TOKENS = 8
Times = dict[str, dict[str, float]]
"""Case -> seconds of its stages."""


def draw_pictures(directory: Path, size: tuple[int, int], seed: int) -> None:
    """Pictures of smooth noise: a warm-up, one to ask about, one to prepare, one to chat about."""
    random = np.random.default_rng(seed)
    for name in ("warm", "asked", "prepared", "chat"):
        small = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(directory / f"{name}.jpg", quality=90)


def ask_first(given: argparse.Namespace) -> Times:
    """The process that sees everything for the first time."""
    import edge_mllm

    found: Times = {}
    work = given.work
    with edge_mllm.load(given.bundle, cache_dir=work / "cache", **settings(given)) as model:
        options: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "ignore_eos": True}
        model.generate(FIRST, images=[work / "warm.jpg"], **options)
        found["new picture"] = stages(model.generate(FIRST, images=[work / "asked.jpg"], **options))
        found["second question"] = stages(model.generate(SECOND, images=[work / "asked.jpg"], **options))
        model.prepare(work / "prepared.jpg").wait()
        found["prepared picture"] = stages(model.generate(FIRST, images=[work / "prepared.jpg"], **options))
        chat = model.chat()
        request = GenerateOptions(max_new_tokens=NEW_TOKENS, ignore_eos=True)
        found["chat, new picture"] = stages(chat.ask(FIRST, images=[work / "chat.jpg"], **request))
        chat.save(work / "chat.edgechat")
    return found


def ask_later(given: argparse.Namespace) -> Times:
    """A new process with what the first one left on disk."""
    import edge_mllm

    found: Times = {}
    work = given.work
    with edge_mllm.load(given.bundle, cache_dir=work / "cache", **settings(given)) as model:
        model.generate(FIRST, max_new_tokens=NEW_TOKENS, ignore_eos=True)
        answer = model.generate(FIRST, images=[work / "asked.jpg"], max_new_tokens=NEW_TOKENS, ignore_eos=True)
        found["new process, embeddings on disk"] = stages(answer)
        start = time.perf_counter()
        chat = model.load_chat(work / "chat.edgechat")
        restored = time.perf_counter() - start
        answer = chat.ask(SECOND, max_new_tokens=NEW_TOKENS, ignore_eos=True)
        found["new process, restored chat"] = stages(answer, before=restored)
    return found


def settings(given: argparse.Namespace) -> dict[str, Any]:
    """How both processes load the model."""
    return {"engine": given.engines, "threads": given.threads, "vision_engine": given.vision_engine}


def stages(answer: Any, before: float = 0.0) -> dict[str, float]:
    """Seconds and token counts of an answer; ``before`` was spent ahead of it and belongs to its first token."""
    timings, usage = answer.timings, answer.usage
    return {
        "first_token_s": before + timings.ttft_s,
        "tiling_s": timings.preprocess_s,
        "tower_s": timings.vision_s,
        "prefill_s": timings.prefill_s,
        "prompt_tokens": usage.prompt_tokens,
        "visual_tokens": usage.image_tokens,
        "reused_tokens": usage.reused_tokens,
    }


def in_process(role: str, given: argparse.Namespace, engine: str, work: Path) -> Times:
    """One of the two processes."""
    command = [sys.executable, str(Path(__file__)), "--bundle", str(given.bundle), "--threads", str(given.threads)]
    command += ["--role", role, "--engines", engine, "--work", str(work), "--vision-engine", given.vision_engine]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{role} failed: {done.stderr.strip()[-600:]}")
    found: Times = json.loads(done.stdout.splitlines()[-1])
    return found


def start_libmtmd(given: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Warm processes of llama.cpp's library, one for each precision of the tower."""
    if not given.libmtmd:
        return {}
    from processes import PeerProcess
    from protocol import Job

    script, found = "peer_libmtmd.py", {}
    for precision in given.libmtmd.split(","):
        place = out / precision
        place.mkdir()
        job = Job("", str(given.bundle), str(place), given.threads, precision)
        found[f"libmtmd {precision}"] = PeerProcess(sys.executable, script, job)
    return found


def ask_libmtmd(process: Any, work: Path) -> Times:
    """A new picture, then a second question about it."""
    from protocol import Question

    found = {}
    for case, text, again in (("new picture", FIRST, False), ("second question", SECOND, True)):
        reply = process.ask(Question(str(work / "asked.jpg"), text, NEW_TOKENS, 0), again=again)
        found[case] = {
            "first_token_s": reply.first_token_s,
            "tower_s": reply.vision_s,
            "prefill_s": reply.prefill_s,
            "prompt_tokens": reply.prompt_tokens,
            "visual_tokens": reply.visual_tokens,
            "reused_tokens": reply.reused_tokens,
        }
    return found


def measure(given: argparse.Namespace, size: tuple[int, int]) -> dict[str, list[Times]]:
    """All rounds: who answers -> a round's cases."""
    engines = given.engines.split(",")
    with TemporaryDirectory() as scratch:
        peers = start_libmtmd(given, Path(scratch))
        names = [f"edge-mllm {engine}" for engine in engines] + list(peers)
        rounds: dict[str, list[Times]] = {name: [] for name in names}
        try:
            for number in range(given.repeat + 1):
                for name in names if number % 2 == 0 else reversed(names):
                    with TemporaryDirectory() as place:
                        work = Path(place)
                        draw_pictures(work, size, number)
                        if name in peers:
                            found = ask_libmtmd(peers[name], work)
                        else:
                            engine = name.split()[-1]
                            found = {
                                **in_process("first", given, engine, work),
                                **in_process("later", given, engine, work),
                            }
                    if number:  # the first round warms the files and the peers
                        rounds[name].append(found)
        finally:
            for process in peers.values():
                process.close()
    return rounds


def summarise(rounds: dict[str, list[Times]]) -> dict[str, Any]:
    """Medians of every case, and its first token as a share of the same side's and of libmtmd's new picture."""
    table: dict[str, Any] = {}
    for name, found in rounds.items():
        cases = {
            case: {key: statistics.median(each[case][key] for each in found) for key in found[0][case]}
            for case in found[0]
        }
        for case in cases.values():
            case["share_of_new_picture"] = case["first_token_s"] / cases["new picture"]["first_token_s"]
        table[name] = cases
    rivals = {name: cases["new picture"]["first_token_s"] for name, cases in table.items() if "libmtmd" in name}
    for name, cases in table.items():
        if "libmtmd" not in name:
            own = cases["new picture"]["first_token_s"]
            cases["new picture"]["share_of"] = {rival: own / seconds for rival, seconds in rivals.items()}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--engines", default="gguf,onnx")
    parser.add_argument("--libmtmd", default="", help="precisions of mmproj-NAME.gguf beside the bundle")
    parser.add_argument("--size", default="1024x768")
    parser.add_argument("--vision-engine", default="ort", help="ort, openvino or openvino-bf16")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "first_token.json")
    parser.add_argument("--role", choices=("first", "later"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role is not None:
        ask = ask_first if given.role == "first" else ask_later
        print(json.dumps(ask(given)))
        return
    from rounds import when_and_where

    from edge_mllm.measure.bench.cases import parse_size

    rounds = measure(given, parse_size(given.size))
    result = {
        **when_and_where(),
        "bundle": given.bundle.name,
        "size": given.size,
        "threads": given.threads,
        "vision_engine": given.vision_engine,
        "rounds": given.repeat,
        "medians": summarise(rounds),
        "samples": rounds,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["medians"], indent=1))


if __name__ == "__main__":
    main()
