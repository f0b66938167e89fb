"""Tables for README and docs: options, measured results, what the starter answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.arm.table import arm_counts
from benchmarks.pages import batches
from benchmarks.pages.devices import devices
from benchmarks.pages.npu import npu, overlap, rknn
from benchmarks.pages.options import options
from benchmarks.pages.tables import table

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "starter" / "results"

_ASKED = (
    ("a word", "word"),
    ("a number", "number"),
    ("the price of an article", "price"),
    ("the article that has the price", "item"),
    ("one line of several", "line"),
    ("all lines", "all"),
    ("a row of a bill", "row"),
    ("the total of a bill", "total"),
    ("a colour, in a pair never shown", "colour"),
    ("a shape, in a pair never shown", "shape"),
    ("how many of a shape", "count"),
    ("where a button is", "point"),
    ("every question", "overall"),
)
_RUNTIMES = {
    "edge-mllm onnx, int8 prompt": "**edge-mllm**, onnx, with prompt weights",
    "edge-mllm onnx": "**edge-mllm**, onnx",
    "edge-mllm gguf": "**edge-mllm**, gguf",
    "openvino w8a8": "OpenVINO, 8-bit weights and activations",
    "torch bf16": "PyTorch, bfloat16",
    "libmtmd q8_0": "llama.cpp's libmtmd, q8_0 tower",
}


def block(name: str) -> str:
    """The lines of a block by its name; ``options COMMAND`` is a table of options.

    Raises:
        KeyError: There is no block of this name.
    """
    kind, _, argument = name.partition(" ")
    return options(argument) if kind == "options" else _BLOCKS[name]()


def _results() -> str:
    """Runtimes side by side on one shape, the fastest to the first token first."""
    found = json.loads((ROOT / "benchmarks" / "results" / "peers_smolvlm-500m_no_amx.json").read_text())
    rows = [_runtime(found["peers"][name]["medians"], title) for name, title in _RUNTIMES.items()]
    head = ["runtime", "picture to first token", "second question", "decode", "peak memory"]
    note = (
        f"SmolVLM-500M's shape with random weights, a {found['picture']} picture "
        f"({found['visual_tokens']} visual tokens), {found['threads']} threads of an "
        f"{found['machine']['processor']['model']} whose AMX was refused to all, "
        f"medians of {found['repeat']} rounds, {found['created'][:10]}."
    )
    return f"{table(head, rows)}\n\n{note}"


def _runtime(medians: dict[str, Any], title: str) -> list[str]:
    return [
        title,
        f"{medians['first_token_s']:.1f} s",
        f"{medians['second_first_token_s']:.2f} s",
        f"{medians['decode_tps']:.0f} tokens/s",
        f"{medians['peak_resident_bytes'] / 1e6:.0f} MB",
    ]


def _starter() -> str:
    """What the starter answers, by kind of question."""
    found = json.loads((STARTER / "accuracy.json").read_text())
    counts = {**found["questions_per_skill"], "overall": found["questions"]}
    rows = [
        [title, str(counts[skill]), *(f"{100 * run['accuracy'][skill]:.1f} %" for run in _ordered(found["runs"]))]
        for title, skill in _ASKED
    ]
    return table(["what is asked", "questions", *map(_run_name, _ordered(found["runs"]))], rows)


def _ordered(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs that see the tiles first."""
    return sorted(runs, key=lambda run: run["view"] != "tiles")


def _run_name(run: dict[str, Any]) -> str:
    return f"{run['name']}, thumbnail only" if run["view"] == "thumbnail" else str(run["name"])


def _families() -> str:
    """Families, and the checkpoints that are known to have their layout."""
    from edge_mllm_export.families.registry import FAMILIES

    rows = [
        [
            f"`{family.name}`",
            ", ".join(family.checkpoints) or "none: the weights are not public",
            "yes" if family.mmproj else "no",
            "yes" if family.published is not None and "refused" not in family.published else "no",
        ]
        for family in FAMILIES
    ]
    return table(["family", "published checkpoints of this layout", "mmproj", "opens without an export"], rows)


def _recipes() -> str:
    """Every recipe, as `edge-mllm models --recipes` lists them."""
    rows = [
        [f"`{recipe['name']}`", recipe["component"], f"{recipe['bits']:g}", _default(recipe), recipe["about"]]
        for recipe in _command("models", "--recipes", "--json")
    ]
    return table(["recipe", "component", "nominal bits per weight", "default", "what it is"], rows)


def _default(recipe: dict[str, Any]) -> str:
    return "yes" if recipe["default"] else ""


def _devices() -> str:
    """The machines that `plan --device` knows."""
    from edge_mllm.costs.devices import device_names, named_device

    rows = [
        [f"`{name}`", profile.processor, str(profile.threads), "estimated" if profile.estimated else "measured"]
        for name in device_names()
        for profile in [named_device(name)]
    ]
    return table(["`--device`", "processor", "threads", "speeds"], rows)


def _command(*arguments: str) -> Any:
    """What a command of this checkout prints as JSON."""
    done = subprocess.run([sys.executable, "-m", "edge_mllm", *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


_BLOCKS: dict[str, Callable[[], str]] = {
    "results": _results,
    "starter": _starter,
    "families": _families,
    "recipes": _recipes,
    "devices": _devices,
    "sent devices": lambda: devices(ROOT / "benchmarks" / "results"),
    "arm counts": lambda: arm_counts(ROOT / "benchmarks" / "results"),
    "npu": lambda: npu(ROOT / "benchmarks" / "results"),
    "rknn": lambda: rknn(ROOT / "benchmarks" / "results"),
    "overlap": lambda: overlap(ROOT / "benchmarks" / "results"),
    "batch scaling": batches.scaling,
    "batch plan": batches.plan,
}
