"""Towers for NPUs, from benchmarks/results/npu.json, rknn.json and overlap.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.pages.tables import table

_KINDS = ("pages", "unlike pages")
_COSINES = ["cosine on pages", "least", "on other pictures", "least"]


def npu(results: Path) -> str:
    """Fidelity, answers and the simulator's cycles."""
    found: dict[str, Any] = json.loads((results / "npu.json").read_text())
    head = ["starter's tower", *_COSINES, "compiled", "left to the CPU"]
    rows = [_row(name, tower) for name, tower in found["towers"].items()]
    compiler = found["compiler"]
    note = (
        f"Simulated: Hexagon v75, QNN {compiler['qnn']}, onnxruntime-qnn {compiler['onnxruntime-qnn']}. Cosines with "
        "the checkpoint's tower in float32, over visual tokens of held-out pages, and of noise, "
        "plain colours and a slope."
    )
    texts = [_large(found["large"]), _answers(found["answers"]), _room(found), _narrow(found), _cycles(found)]
    parts = [table(head, rows), note, *texts]
    return "\n\n".join(parts)


def _cosines(found: dict[str, Any]) -> list[str]:
    return [f"{found[kind][key]:.5f}" for kind in _KINDS for key in ("mean", "least")]


def _row(name: str, tower: dict[str, Any]) -> list[str]:
    size = f"{tower['context_bytes']['v75'] / 1e6:.1f} MB"
    return [f"`{name}`", *_cosines(tower["cosine"]), size, str(sum(tower["nodes_on_cpu"].values()))]


def _large(found: dict[str, Any]) -> str:
    return (
        f"One tile of {found['shape']}'s tower (SigLIP-B/16 at 512 pixels, random weights) in `a16w8`: mean cosine "
        f"{found['cosine']['mean']:.5f}, least {found['cosine']['least']:.5f}, compiled "
        f"{found['context_bytes'] / 1e6:.0f} MB, {sum(found['nodes_on_cpu'].values())} operators left to the CPU."
    )


def rknn(results: Path) -> str:
    """Fidelity of what Rockchip's compiler makes."""
    found: dict[str, Any] = json.loads((results / "rknn.json").read_text())
    head = ["starter's tower", "scales by", *_COSINES, "compiled", "kept by an export", "left to the CPU"]
    rows = [
        [
            f"`{tower['precision']}`, {tower['chip']}",
            tower["scales"],
            *_cosines(tower["cosine"]),
            f"{tower['bytes'] / 1e6:.1f} MB",
            "yes" if tower["kept_by_export"] else "no",
            f"{sum(tower['left_to_cpu'].values())} of {tower['operators']}",
        ]
        for tower in found["towers"]
    ]
    note = f"Simulated: rknn-toolkit2 {found['toolkit']}. Cosines as above."
    return f"{table(head, rows)}\n\n{note}"


def overlap(results: Path) -> str:
    """First tokens with a tower that sleeps, beside the decoder and before it."""
    found: dict[str, Any] = json.loads((results / "overlap.json").read_text())
    kinds = ["bundle", "engine", "threads", "pictures", "tiles", "a tile"]
    head = [*kinds, "decoder after the tower", "beside it", "same cache", "rounds"]
    rows = [
        [
            case["bundle"],
            case["engine"],
            str(case["threads"]),
            str(case["pictures"]),
            str(case["tiles"]),
            f"{case['tile_s']:.2f} s",
            f"{case['before']['ttft_s']:.2f} s",
            f"{case['beside']['ttft_s']:.2f} s",
            "bit for bit" if case["same_cache"] else "no",
            str(case["rounds"]),
        ]
        for case in found["cases"]
    ]
    note = "To the first token: medians of rounds in turns. The starter's machine did other work too."
    return f"{table(head, rows)}\n\n{note}"


def _answers(found: dict[str, Any]) -> str:
    right, apart, simulated = found["right"], found["difference"], found["simulated"]
    low, high = (100 * value for value in apart["interval_95"])
    return (
        f"Of {found['questions']} questions about held-out pages the starter answers "
        f"{100 * right['int8 on the CPU']:.1f} % right with its int8 tower and "
        f"{100 * right['a16w8 on the CPU provider']:.1f} % with the NPU's graph on the CPU (difference "
        f"{100 * apart['mean']:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}). "
        f"Of {simulated['questions']} with the tower on the simulator it answers "
        f"{100 * simulated['right']:.0f} % right, with the int8 tower {100 * simulated['right_int8']:.0f} %, and "
        f"{100 * simulated['same_answer_as_int8']:.0f} % of the answers are the same."
    )


def _room(found: dict[str, Any]) -> str:
    rows = [[f"{name} times", *_cosines(room)] for name, room in found["room_at_16_bits"].items()]
    return table(["ranges at 16 bits, on the CPU", *_COSINES], rows)


def _narrow(found: dict[str, Any]) -> str:
    ways = found["eight_bits_at_16"]
    whole = ways["none"]["cycles"]["of_a_tile"]
    names = {"none": "nowhere", "gelu": "between the products of an MLP (default)", "attention": "in attention"}
    rows = [
        [names[name], *_cosines(way["cosine_cpu_provider"]), f"{way['cycles']['of_a_tile'] / whole:.2f}"]
        for name, way in ways.items()
    ]
    return table(["8 bits at `a16w8`", *_COSINES, "simulated cycles"], rows)


def _cycles(found: dict[str, Any]) -> str:
    rows = []
    for name, tower in found["towers"].items():
        cycles = tower["cycles"]
        kinds = [f"{kind} {100 * value / cycles['of_a_tile']:.0f} %" for kind, value in cycles["by_kind"].items()][:4]
        dearest = [f"{each.split(':')[0]} {value / 1e6:.1f} M" for each, value in cycles["dearest_operators"].items()]
        rows.append([f"`{name}`", f"{cycles['of_a_tile'] / 1e6:.0f} M", ", ".join(kinds), ", ".join(dearest)])
    shown = table(["simulated", "cycles of a tile", "most of them in", "dearest operators"], rows)
    return (
        f"{shown}\n\nThe simulator's cycles follow the host's clock and stand for its work, not for a device's: each "
        "operator's least value over several runs. What it writes down beside a GELU is mostly the product before it; "
        "in the integer towers products are nearly all there is, and fewer bits make them cheaper."
    )
