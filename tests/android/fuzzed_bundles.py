"""Mutated bundles for the phone's code: a whole one, one place of it damaged from a seed, hashes made right again."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fuzz.cases import case_of, damage, write_file
from fuzz.mutations import damaged_json, damaged_text

SHARES: Mapping[str, int] = {
    "bundle.json": 24, "tiler": 12, "tokenizer": 16, "decoder": 12, "tower": 10, "embeddings": 12, "missing": 6,
    "path": 5, "hash": 3,
}  # fmt: skip
"""Parts of a hundred."""

_NUMBERS = (0, 1, 2, 3, 7, 32, 96, 512, 4096, 65_536, (1 << 24) - 1, 1 << 24, 1 << 31, -1)
_TILERS: tuple[dict[str, Any], ...] = (
    {"kind": "longest_edge_grid", "longest_edge": 192, "tile": 96, "split": True},
    {"kind": "aspect_grid", "tile": 96, "min_tiles": 1, "max_tiles": 6, "thumbnail": True},
    {"kind": "native_resolution", "unit": 28, "min_pixels": 784, "max_pixels": 78400},
    {"kind": "best_fit_grid", "tile": 96, "grids": [[1, 2], [2, 1]], "slack": 0.1, "stitch": {"max_tiles": 4}},
    {"kind": "single_tile", "tile": 96, "fit": "pad", "fill": [1, 2, 3], "stitch": {"plain": True}},
    {"kind": "pan_and_scan", "tile": 96, "min_crop": 16, "max_crops": 4, "min_ratio": 1.2},
)
_PATTERNS = (
    "(?:" * 3000 + "a" + ")" * 3000, "a*" * 60 + "!", "(?=" * 400 + ")" * 400, "[", "[a-", "\\", "\\p", "\\p{L", "(",
    "(?", "a{1", "a{99999999999}", "[[[[", "(?i:", "[^\\s\\p{L}\\p{N}]+|(?!)", "\\x", "\\u12", "x" * 9000, "", "|||",
    ".*.*.*.*.*.*.*.*.*.*.*.*.*.*!",
)  # fmt: skip
_PATHS = ("../{}", "/etc/passwd", "./../{}", "a/../../{}", "", ".", "..", "\0", "\\{}", "a" * 5000, "\ud800", "\n{}")


class Fuzzed:
    """A damaged copy of one of several bundles."""

    def __init__(self, sources: list[Path], seed: int) -> None:
        self._sources, self._seed = sources, seed

    def make(self, number: int, place: Path) -> None:
        """Write the ``number``-th case as a bundle at ``place``, which must be on the file system of the sources."""
        rng = random.Random(f"{self._seed} {number}")
        source = rng.choice(self._sources)
        place.mkdir(parents=True)
        manifest = json.loads((source / "bundle.json").read_text("utf-8"))
        for part in manifest["parts"].values():
            os.link(source / part["file"], place / part["file"])
        manifest |= {"verification": {}, "source": {}, "exporter": {}}  # long, and not read
        makers: Mapping[str, Callable[[dict[str, Any], Path, random.Random], None]] = {
            "bundle.json": lambda manifest, place, rng: None, "tiler": _tiler, "tokenizer": _tokenizer,
            "decoder": _decoder, "tower": _tower, "embeddings": _embeddings, "missing": _missing, "path": _path,
            "hash": _hash,
        }  # fmt: skip
        kind = case_of(number, SHARES)
        makers[kind](manifest, place, rng)
        text = json.dumps(manifest)
        text = damaged_json(text, rng) if kind == "bundle.json" else text
        (place / "bundle.json").write_bytes(text.encode("utf-8", "surrogatepass"))


def _again(manifest: dict[str, Any], place: Path, file: str) -> None:
    """Make size and hash of a changed file right again."""
    data = (place / file).read_bytes()
    for part in manifest["parts"].values():
        if part["file"] == file:
            part |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _damage_part(names: tuple[str, ...], manifest: dict[str, Any], place: Path, rng: random.Random) -> None:
    file = manifest["parts"][rng.choice([name for name in names if name in manifest["parts"]])]["file"]
    damage(place / file, rng)
    _again(manifest, place, file)


def _decoder(manifest: dict[str, Any], place: Path, rng: random.Random) -> None:
    names = ("decoder_onnx", "decoder_onnx", "decoder_onnx", "decoder_onnx_data", "prompt_onnx", "prompt_onnx_data")
    _damage_part(names, manifest, place, rng)


def _tower(manifest: dict[str, Any], place: Path, rng: random.Random) -> None:
    _damage_part(("vision", "vision", "newline"), manifest, place, rng)


def _tiler(manifest: dict[str, Any], place: Path, rng: random.Random) -> None:
    """Another tiler with numbers of all sizes, and a tower that is said to suit it."""
    tiler = json.loads(json.dumps(rng.choice(_TILERS)))
    numbers = [name for name, value in tiler.items() if type(value) is int]
    for name in rng.choices(numbers, k=rng.choice((0, 1, 1, 2))):
        tiler[name] = rng.choice(_NUMBERS)
    for name, value in (("grids", [[1 << 9, 2], [1024, 1024]]), ("slack", -1e300), ("min_ratio", 1e-9), ("fill", [9])):
        if name in tiler and rng.random() < 0.3:
            tiler[name] = value
    side = tiler.get("tile", tiler.get("unit"))
    manifest["image"]["tiler"] = tiler
    tokens = rng.choice((1, 36, 36, 4096, (1 << 24) - 1))
    manifest["vision"] = {"tokens_per_tile": tokens, "tile_height": side, "tile_width": side}
    if "unit" in tiler:
        manifest["vision"]["patches"] = {"patch": max(1, side // 2), "merge": 2, "frames": rng.choice((1, 2, 4096))}
    if rng.random() < 0.2:
        manifest["decoder"] |= {"context_length": rng.choice((1, 64, (1 << 24) - 1)), "head_dim": rng.choice(_NUMBERS)}


def _tokenizer(manifest: dict[str, Any], place: Path, rng: random.Random) -> None:
    """Anywhere, or beside the long lists of tokens and merges, or in a pattern."""
    file = manifest["parts"]["tokenizer"]["file"]
    document = json.loads((place / file).read_text("utf-8"))
    kind = rng.randrange(4)
    if kind == 0:
        text = damaged_json(json.dumps(document), rng)
    elif kind == 1:
        pattern = rng.choice(_PATTERNS)
        pattern = damaged_text("\\s+(?!\\S)| ?[^\\p{L}]{1,3}+", rng) if rng.random() < 0.4 else pattern
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        document["pre_tokenizer"] = split
        text = json.dumps(document)
    else:
        lists = {name: document["model"].pop(name) for name in ("vocab", "merges")}
        changed = damaged_json(json.dumps(document), rng)
        try:
            document = json.loads(changed)
            document["model"] |= lists
            changed = json.dumps(document)
        except (ValueError, TypeError, KeyError):
            pass  # as it is
        text = changed
    write_file(place / file, text.encode("utf-8", "surrogatepass"))
    _again(manifest, place, file)


def _embeddings(manifest: dict[str, Any], place: Path, rng: random.Random) -> None:
    """Bytes anywhere, or a header that says something else."""
    file = manifest["parts"]["embeddings"]["file"]
    data = (place / file).read_bytes()
    if rng.random() < 0.3:
        damage(place / file, rng)
    else:
        body = data[10 + int.from_bytes(data[8:10], "little") :]
        kind = rng.choice(("<f4", "<f4", "<f4", "<f2", ">f4", "|O", "<f8"))
        big = (1 << 31, 1 << 40, 1 << 61, (1 << 64) + 1, 384, 256, 1, 0)
        shape = rng.choice((f"({rng.choice(big)}, {rng.choice(big)})", f"({rng.choice(big)},)", "()", "(-1, 256)"))
        order = rng.random() < 0.1
        header = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
        length = rng.choice((len(header), len(header), len(header), 0, 65535, len(header) - 5))
        version = rng.choice((1, 1, 1, 2, 3, 255))
        write_file(place / file, data[:6] + bytes((version, 0)) + length.to_bytes(2, "little") + header + body)
    _again(manifest, place, file)


def _missing(manifest: dict[str, Any], place: Path, rng: random.Random) -> None:
    """A file, a part of bundle.json, or what a file of the same name would be."""
    name = rng.choice(sorted(manifest["parts"]))
    kind = rng.randrange(3)
    if kind == 0:
        del manifest["parts"][name]
        return
    file = place / manifest["parts"][name]["file"]
    file.unlink()
    if kind == 1 and rng.random() < 0.5:
        file.mkdir()
    elif kind == 2:
        file.touch()
        _again(manifest, place, file.name)


def _path(manifest: dict[str, Any], place: Path, rng: random.Random) -> None:
    """A part whose path leaves the bundle, by its text or by a link."""
    part = manifest["parts"][rng.choice(sorted(manifest["parts"]))]
    if rng.random() < 0.3:
        file = place / part["file"]
        file.unlink()
        file.symlink_to(rng.choice(("/etc/passwd", "../..", file.name, "/dev/zero")))
    else:
        part["file"] = rng.choice(_PATHS).format(part["file"])


def _hash(manifest: dict[str, Any], place: Path, rng: random.Random) -> None:
    """A changed file whose hash is not made right."""
    damage(place / manifest["parts"][rng.choice(sorted(manifest["parts"]))]["file"], rng)
