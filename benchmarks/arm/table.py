"""Tables of counted instructions for the pages, from benchmarks/results/arm_counts.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.pages.tables import table

TOWERS = {
    "tower int8": "**edge-mllm**, int8",
    "tower fp32": "**edge-mllm**, float32",
    "libmtmd q8_0": "llama.cpp's libmtmd, q8_0",
    "libmtmd f16": "llama.cpp's libmtmd, f16",
}
DECODERS = {
    "onnx": "**edge-mllm**, onnx",
    "onnx, int8 prompt": "**edge-mllm**, onnx, with prompt weights",
    "gguf": "**edge-mllm**, gguf",
    "llama.cpp": "llama.cpp's own loop",
}
PEER = "libmtmd q8_0"
"""What towers are compared with."""
KERNELS = {"matrix": "SMMLA", "dot": "SDOT", "half_fma": "FMLA of float16", "fma": "FMLA"}
"""Kind of instruction -> what tells which kernel ran."""
Found = dict[str, Any]


def arm_counts(results: Path) -> str:
    """What to conclude, two tables (towers by tile, decoders by token), and how it was counted."""
    found: Found = json.loads((results / "arm_counts.json").read_text())
    towers = ["model", "emulated", "tower", "million a tile", "of libmtmd q8_0", "all layers", "products"]
    cells = ("all layers", "products")
    decoders = ["model", "emulated", "decoder", "million a prompt token", *cells, "million a token", *cells]
    kinds = "; ".join(f"*{name}*: {each['about']}" for name, each in found["processors"].items())
    note = (
        f"**Counts, not times**: {found['emulator'].partition(' (')[0]} knows no caches, no memory and no pipelines, "
        f"and an instruction may take one cycle or a hundred. {found['threads']} thread, a prompt of "
        f"{_first_units(found, 'prompt')} tokens, {_spread(found)}. {_reckoned(found)}"
        f"*Products*: the share of instructions that multiply and sum vectors, by kind. {kinds}. {_versions(found)}, "
        f"{found['created'][:10]}, commit {found['commit'].rstrip('+')}."
    )
    tables = (_filled(towers, _rows(found, TOWERS)), _filled(decoders, _rows(found, DECODERS)))
    return "\n\n".join((_conclusion(found), *tables, note))


def _filled(head: list[str], rows: list[list[str]]) -> str:
    """A table without columns that no row has anything in."""
    used = [column for column in range(len(head)) if any(row[column] for row in rows)]
    return table([head[column] for column in used], [[row[column] for column in used] for row in rows])


def count(found: Found, stage: str) -> float:
    """Instructions of a unit of a part: of a tile, a prompt token or a token; the last of its runs."""
    counted = found["stages"][stage]
    return float(counted["runs"][-1]["all"] / counted["units"])


def in_full(one: float, two: float, layers: int) -> float:
    """What all layers take, from what one and two of them take: every further one takes the same."""
    return one + (layers - 1) * (two - one)


def kernels(found: Found, stage: str) -> str:
    """Shares of the instructions that tell which kernel ran, the larger ones."""
    run = found["stages"][stage]["runs"][-1]
    shares = {name: 100 * run[kind] / run["all"] for kind, name in KERNELS.items()}
    return ", ".join(f"{name} {share:.0f} %" for name, share in shares.items() if share >= 1) or "none"


def shares(found: Found, part: str, peer: str, stage: str) -> list[float]:
    """What a part takes of what another takes, for every model and processor that both were counted with."""
    both = [parts for model in found["models"].values() for parts in model["processors"].values()]
    return [count(each[part], stage) / count(each[peer], stage) for each in both if part in each and peer in each]


def _conclusion(found: Found) -> str:
    tile, prompt, token, loop = (
        _range(shares(found, part, peer, stage))
        for part, peer, stage in (
            ("tower int8", PEER, "tile"),
            ("onnx, int8 prompt", "llama.cpp", "prompt"),
            ("onnx", "llama.cpp", "token"),
            ("gguf", "llama.cpp", "token"),
        )
    )
    return (
        f"A tile of our int8 tower takes {tile} of the instructions that libmtmd's takes with q8_0. Of llama.cpp's own "
        f"loop, a prompt token with prompt weights takes {prompt}, an answer's token {token} on the onnx engine and "
        f"{loop} on the gguf engine. Kernels for dot products and matrices of bytes run where the processor has them."
    )


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def _rows(found: Found, parts: dict[str, str]) -> list[list[str]]:
    """A row for every part that was counted, models and processors apart."""
    rows = []
    for entry in found["models"].values():
        if entry["layers"] not in (None, 1):
            continue
        for processor, counted in entry["processors"].items():
            deeper = _deeper(found, entry, processor)
            for part, title in parts.items():
                if part in counted:
                    cells = (_tower if parts is TOWERS else _decoder)(entry, counted, deeper, part)
                    rows.append([_title(entry), processor, title, *cells])
    return rows


def _title(entry: Found) -> str:
    return entry["name"] if entry["layers"] is None else f"{entry['name']}, one layer"


def _tower(entry: Found, counted: Found, deeper: Found, part: str) -> list[str]:
    own = count(counted[part], "tile")
    share = f"{own / count(counted[PEER], 'tile'):.2f}" if PEER in counted else ""
    return [_million(own), share, _all(entry, counted, deeper, part, "tile"), kernels(counted[part], "tile")]


def _decoder(entry: Found, counted: Found, deeper: Found, part: str) -> list[str]:
    cells = []
    for stage in ("prompt", "token"):
        own = _million(count(counted[part], stage))
        cells += [own, _all(entry, counted, deeper, part, stage), kernels(counted[part], stage)]
    return cells


def _deeper(found: Found, entry: Found, processor: str) -> Found:
    """The same model with two layers; empty where that was not counted."""
    for other in found["models"].values():
        if other["name"] == entry["name"] and other["layers"] == 2:
            return dict(other["processors"].get(processor, {}))
    return {}


def _all(entry: Found, counted: Found, deeper: Found, part: str, stage: str) -> str:
    if entry["layers"] is None or part not in deeper:
        return ""  # it is whole, or that was not counted
    layers = entry["layers_in_full"]["tower" if stage == "tile" else "decoder"]
    return _million(in_full(count(counted[part], stage), count(deeper[part], stage), layers))


def _million(value: float) -> str:
    return f"{value / 1e6:,.0f}" if value >= 1e8 else f"{value / 1e6:.3g}"


def _parts(found: Found) -> list[Found]:
    return [
        part for model in found["models"].values() for parts in model["processors"].values() for part in parts.values()
    ]


def _first_units(found: Found, stage: str) -> int:
    return next(int(part["stages"][stage]["units"]) for part in _parts(found) if stage in part["stages"])


def _spread(found: Found) -> str:
    """How far two runs of the same work are apart, at worst."""
    worst = max(
        abs(runs[0]["all"] / runs[-1]["all"] - 1)
        for part in _parts(found)
        for stage, counted in part["stages"].items()
        if stage in ("tile", "prompt")
        for runs in [counted["runs"]]
    )
    return f"two runs of each at most {100 * worst:.2g} % apart"


def _reckoned(found: Found) -> str:
    deeper = any(model["layers"] == 2 for model in found["models"].values())
    return "*All layers*: reckoned from one and two layers. " if deeper else ""


def _versions(found: Found) -> str:
    return ", ".join(f"{name} {found['versions'][name]}" for name in ("onnxruntime", "llama-cpp-python"))
