"""What the pages say of counted instructions: the plug-in's masks, the tables, and the committed counts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.arm.table import PEER, TOWERS, arm_counts, in_full, kernels

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = (ROOT / "benchmarks/arm/count_instructions.c").read_text()
RESULT = ROOT / "benchmarks/results/arm_counts.json"
MASKS = [
    (kind, int(mask, 0), int(value, 0)) for kind, mask, value in re.findall(r"\{([A-Z_]+), (\w+), (\w+)\},", PLUGIN)
]
WORDS = {
    0x3D800020: {"MEMORY"},  # str q0, [x1]
    0xF94003FE: {"MEMORY"},  # ldr x30, [sp]
    0x4E24CC62: {"VECTOR", "FMA"},  # fmla v2.4s, v3.4s, v4.4s
    0x4FA41062: {"VECTOR", "FMA"},  # fmla v2.4s, v3.4s, v4.s[1]
    0x4E440C62: {"VECTOR", "HALF_FMA"},  # fmla v2.8h, v3.8h, v4.8h
    0x4E849462: {"VECTOR", "DOT"},  # sdot v2.4s, v3.16b, v4.16b
    0x6F84E862: {"VECTOR", "DOT"},  # udot v2.4s, v3.16b, v4.4b[2]
    0x4E849C62: {"VECTOR", "DOT"},  # usdot v2.4s, v3.16b, v4.16b
    0x4F24F862: {"VECTOR", "DOT"},  # sudot v2.4s, v3.16b, v4.4b[3]
    0x4E84A462: {"VECTOR", "MATRIX"},  # smmla v2.4s, v3.16b, v4.16b
    0x6E84A462: {"VECTOR", "MATRIX"},  # ummla v2.4s, v3.16b, v4.16b
    0x4E84AC62: {"VECTOR", "MATRIX"},  # usmmla v2.4s, v3.16b, v4.16b
    0x4E24D462: {"VECTOR"},  # fadd v2.4s, v3.4s, v4.4s
    0xF1000400: set(),  # subs x0, x0, #1
    0x54FFFE61: set(),  # b.ne
}
"""Encodings as GNU binutils' assembler for aarch64 writes them."""


@pytest.mark.parametrize("word", WORDS, ids=hex)
def test_the_plugin_tells_kinds_of_instructions(word: int) -> None:
    kinds = {kind for kind, mask, value in MASKS if word & mask == value}
    assert kinds == WORDS[word] | {"ALL"}


def test_program_and_plugin_share_the_mark() -> None:
    marks = {
        re.search(r"MARK(?: =)? (0x\w+)", (ROOT / "benchmarks/arm" / name).read_text()).group(1)
        for name in ("count_instructions.c", "known_counts.c", "guest.py")
    }
    assert len(marks) == 1


def run(every: int, **kinds: int) -> dict:
    return {"all": every, "memory": 0, "vector": 0, "fma": 0, "half_fma": 0, "dot": 0, "matrix": 0} | kinds


def part(**stages: tuple[int, list[dict]]) -> dict:
    return {"stages": {stage: {"units": units, "runs": runs} for stage, (units, runs) in stages.items()}}


def written(folder: Path) -> Path:
    """A result of round numbers: what they make of a table can be reckoned in one's head."""

    def model(layers: int) -> dict:
        tower, peer = run((10 + 20 * layers) * 10**6, matrix=6 * 10**6), run((20 + 40 * layers) * 10**6)
        decoder = part(prompt=(64, [run(640 * 10**6, dot=64 * 10**6)] * 2), token=(1, [run((7 + layers) * 10**6)]))
        other = part(prompt=(64, [run(1280 * 10**6)] * 2), token=(1, [run(10 * (7 + layers) * 10**6)]))
        towers = {"tower int8": part(tile=(1, [tower, tower])), PEER: part(tile=(1, [peer, peer]))}
        counted = towers | dict.fromkeys(("onnx", "onnx, int8 prompt", "gguf"), decoder) | {"llama.cpp": other}
        return {
            "name": "m",
            "layers": layers,
            "layers_in_full": {"tower": 12, "decoder": 5},
            "processors": {"p": counted},
        }

    result = {
        "emulator": "qemu version 7 (x)",
        "threads": 1,
        "versions": {"onnxruntime": "1", "llama-cpp-python": "2"},
        "processors": {"p": {"about": "all there is"}},
        "created": "2026-01-02T03:04:05",
        "commit": "abc+",
        "models": {"m, 1 layer": model(1), "m, 2 layers": model(2)},
    }
    (folder / "arm_counts.json").write_text(json.dumps(result))
    return folder


def test_tables_of_counts(tmp_path: Path) -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in arm_counts(written(tmp_path)).splitlines()]
    assert ["m, one layer", "p", TOWERS["tower int8"], "30", "0.50", "250", "SMMLA 20 %"] in rows
    assert ["m, one layer", "p", TOWERS[PEER], "60", "1.00", "500", "none"] in rows
    assert ["m, one layer", "p", "**edge-mllm**, onnx", "10", "10", "SDOT 10 %", "8", "12", "none"] in rows
    assert not any(row and row[0] == "m, two layers" for row in rows)


def test_the_conclusion_is_reckoned(tmp_path: Path) -> None:
    conclusion = arm_counts(written(tmp_path)).splitlines()[0]
    assert "tower takes 0.50 of" in conclusion
    assert "with prompt weights takes 0.50, an answer's token 0.10 on the onnx engine and 0.10 on" in conclusion


def test_the_note_says_that_these_are_no_times(tmp_path: Path) -> None:
    note = arm_counts(written(tmp_path)).splitlines()[-1]
    assert "**Counts, not times**" in note
    assert "prompt of 64 tokens" in note
    assert "at most 0 % apart" in note


def test_every_further_layer_takes_the_same() -> None:
    assert in_full(30.0, 50.0, 1) == 30.0
    assert in_full(30.0, 50.0, 12) == 250.0


def test_kernels_are_told_by_their_instructions() -> None:
    counted = part(tile=(1, [run(100, dot=9, matrix=30), run(1000, dot=400, fma=5)]))
    assert kernels(counted, "tile") == "SDOT 40 %"


def test_committed_counts_are_repeatable_and_add_up() -> None:
    parts = [
        found
        for model in json.loads(RESULT.read_text())["models"].values()
        for counted in model["processors"].values()
        for found in counted.values()
    ]
    assert parts
    for found in parts:
        for stage, counted in found["stages"].items():
            for each in counted["runs"]:
                assert sum(each[kind] for kind in ("fma", "half_fma", "dot", "matrix")) <= each["vector"]
                assert each["memory"] + each["vector"] <= each["all"]
            totals = [each["all"] for each in counted["runs"]]
            assert stage == "nothing" or max(totals) < 1.1 * min(totals), (stage, totals)
