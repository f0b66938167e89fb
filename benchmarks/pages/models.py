"""models.md, from the families, the recipes and the committed results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.pages.measurements import plan_error, scaling
from benchmarks.pages.quantisation import auto, calibration_cost, quantisation
from benchmarks.pages.reduction import reduction
from benchmarks.pages.tables import table
from edge_mllm.picture.tile_plan import plan_tiles
from edge_mllm_export.families.family import Family
from edge_mllm_export.families.registry import FAMILIES, find_family
from edge_mllm_export.shapes import PREFIX, SHAPES
from edge_mllm_export.source.source import describe_source
from edge_mllm_quant.recipes.recipe import RECIPES

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
STARTER = ROOT / "starter" / "results"
SIZES = ((640, 480), (1024, 768), (1080, 2400), (224, 224))
KIND = re.compile(r"(?<!^)(?=[A-Z])")
"""Between the words of a class name."""


def page() -> str:
    """The whole of models.md."""
    sections = [
        "# Models\n\nWritten by `make numbers` from the family files, the recipes and the committed result files.",
        families(),
        cutting(),
        recipes(),
        shapes(),
        peers(),
        plan_error(RESULTS),
        scaling(RESULTS),
        starter(),
        quantisation(RESULTS),
        auto(RESULTS),
        calibration_cost(RESULTS),
        reduction(RESULTS),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def families() -> str:
    """One row per family."""
    rows = [
        [
            family.name,
            "<br>".join(f"`{name}`" for name in family.architectures),
            "<br>".join(family.checkpoints),
            family.licence,
            "onnx, gguf",
            "yes" if family.mmproj else "no",
            published(family),
            parity(family.name),
        ]
        for family in FAMILIES
    ]
    head = ["family", "architectures", "published checkpoints of this layout", "their licence", "engines", "mmproj"]
    head += ["published ONNX directories"]
    note = (
        "The licence that counts is the one the export finds in the source: bundle.json has it, `edge-mllm inspect` "
        "shows it. Parity: pictures whose pixels (bit for bit) and token ids equal the model's own processor."
    )
    equal, total = map(sum, zip(*map(_swept, (family.name for family in FAMILIES)), strict=True))
    conclusion = (
        f"Every family exports to both engines, and {equal} of {total} swept pictures were read as the model's own "
        "processor reads them."
    )
    return f"## Families\n\n{conclusion}\n\n{table([*head, 'parity sweep'], rows)}\n\n{note}"


def published(family: Family) -> str:
    """Whether ``run -m DIR`` opens ONNX files that others published, or why not."""
    if family.published is None:
        return "none known"
    return str(family.published.get("refused", "opened"))


def parity(name: str) -> str:
    """What the committed sweep found for this family."""
    equal, total = _swept(name)
    return f"{equal} of {total} equal" if total else "not run"


def _swept(name: str) -> tuple[int, int]:
    """Pictures whose pixels and token ids were equal, and all of the sweep; zeros where none was run."""
    file = RESULTS / f"parity_{name}.json"
    results = json.loads(file.read_text())["results"] if file.exists() else []
    equal = sum(min(entry["pixels_equal"], entry["ids_equal"]) for entry in results)
    return equal, sum(entry["sizes"] for entry in results)


def cutting() -> str:
    """How every shape cuts pictures, from its configuration alone."""
    rows, all_counts = [], []
    for name in SHAPES:
        checkpoint = describe_source(PREFIX + name)
        family = find_family(checkpoint)
        tiler, vision = family.image(checkpoint).tiler, family.vision(checkpoint)
        plans = [plan_tiles(width, height, tiler) for width, height in SIZES]
        all_counts += [plan.tokens(vision.tokens_per_tile) for plan in plans]
        counts = [f"{plan.tokens(vision.tokens_per_tile)} ({plan.count})" for plan in plans]
        rows.append([f"`{PREFIX}{name}`", family.name, KIND.sub(" ", type(tiler).__name__).lower(), *counts])
    head = ["model", "family", "tiler", *(f"{width}x{height}" for width, height in SIZES)]
    note = (
        "Visual tokens of a picture (tiles in brackets) as the published settings cut it; `edge-mllm plan SOURCE` has "
        "them for any checkpoint. By itself, export writes an int8 tower, `q4_0` for gguf and `int4_b32` for onnx."
    )
    conclusion = (
        f"A picture becomes {min(all_counts)} to {max(all_counts)} visual tokens: where the "
        "first token must come soon, "
        "choose a model by its tiling as much as by its size, or limit the tokens."
    )
    return f"## Visual tokens\n\n{conclusion}\n\n{table(head, rows)}\n\n{note}"


def recipes() -> str:
    """One row per recipe."""
    rows = [[r.name, r.component, f"{r.bits:g}", "yes" if r.lossless else ""] for r in RECIPES]
    conclusion = (
        "Lossless recipes are for comparison; four-bit decoders with an int8 tower are the default, and `--quant auto` "
        "looks for something better within a size."
    )
    columns = ["recipe", "component", "nominal bits per weight", "lossless"]
    return f"## Recipes\n\n{conclusion}\n\n{table(columns, rows)}"


def shapes() -> str:
    """One row per shape that was exported at true size."""
    file = RESULTS / "shapes.json"
    if not file.exists():
        return ""
    found = json.loads(file.read_text())
    head = ["shape", "visual tokens at 640x480 / 1024x768 / 1080x2400", "tower, decoder gguf, decoder onnx (MB)"]
    rows = [shape_row(name, entry) for name, entry in found["shapes"].items()]
    note = (
        "Random weights in the true shape; export of both formats without verification, 2 cores; dates, commits and "
        "load are in benchmarks/results/shapes.json."
    )
    head += ["export (s)", "peak memory of the export (GiB)", "machine"]
    done = {name: entry for name, entry in found["shapes"].items() if "failed" not in entry}
    least, most = (choose(done, key=lambda name: done[name]["export_peak_rss_bytes"]) for choose in (min, max))
    conclusion = (
        f"A workstation exports what a device runs: {least} needs "
        f"{done[least]['export_peak_rss_bytes'] / 2**30:.1f} GiB, {most} "
        f"{done[most]['export_peak_rss_bytes'] / 2**30:.1f} GiB."
    )
    return f"## True sizes\n\n{conclusion}\n\n{table(head, rows)}\n\n{note}"


def shape_row(name: str, entry: dict[str, Any]) -> list[str]:
    """The cells of one shape."""
    machine = f"{entry['machine']['processor']}, {entry['date'][:10]}"
    if "failed" in entry:
        return [f"`shape:{name}`", "", f"failed: {' '.join(entry['failed'])}", str(entry["export_s"]), "", machine]
    parts = entry["parts"]
    onnx = sum(parts[part]["bytes"] for part in ("decoder_onnx", "decoder_onnx_data", "embeddings") if part in parts)
    sizes = [parts["vision"]["bytes"], parts["decoder_gguf"]["bytes"], onnx]
    return [
        f"`shape:{name}`",
        " / ".join(map(str, entry["tokens_per_picture"].values())),
        ", ".join(f"{size / 1e6:.0f}" for size in sizes),
        f"{entry['export_s']:.0f}",
        f"{entry['export_peak_rss_bytes'] / 2**30:.1f}",
        machine,
    ]


PEER_COLUMNS = (
    ("first_token_s", "picture to first token", "s"),
    ("vision_s", "of it the picture", "s"),
    ("second_first_token_s", "second question", "s"),
    ("prefill_tps", "prefill", "tokens/s"),
    ("decode_tps", "decode", "tokens/s"),
    ("peak_resident_bytes", "peak resident", "MB"),
    ("disk_bytes", "on disk", "MB"),
)


def peers() -> str:
    """A table for every model that other runtimes were compared on."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("peers_*.json"))]
    return "\n\n".join(map(peers_of, found))


def peers_of(found: dict[str, Any]) -> str:
    """Medians of every runtime, the ratio to the first one in brackets."""
    rows = []
    for name, entry in found["peers"].items():
        cells = [name]
        for key, _, unit in PEER_COLUMNS:
            value, ratio = entry["medians"].get(key), entry["ratios"].get(key)
            scaled = None if value is None else value / 1e6 if unit == "MB" else value
            cells.append("" if scaled is None else f"{scaled:.{0 if scaled >= 100 else 2}f} ({ratio:.2f})")
        rows.append(cells)
    machine = found["machine"]
    note = (
        f"{found['picture']} picture, {found['visual_tokens']} visual tokens, {found['prompt_tokens']} prompt tokens, "
        f"{found['threads']} threads, medians of {found['repeat']} interleaved rounds on "
        f"{machine['processor']['model']}{_amx(found)}, {found['created'][:10]}, "
        f"commit {machine['commit']}; "
        f"in brackets the ratio to {found['ratios_to']}. "
        "ort-genai runs the decoder alone."
    )
    head = ["runtime", *(f"{title} ({unit})" for _, title, unit in PEER_COLUMNS)]
    title = found["model"] + (", without AMX" if found.get("amx_refused") else "")
    return f"## Side by side: {title}\n\n{_peers_conclusion(found['peers'])}\n\n{table(head, rows)}\n\n{note}"


def _peers_conclusion(peers: dict[str, Any]) -> str:
    """Who is first at what."""
    measures = {
        "first_token_s": ("the first token comes soonest with", min),
        "second_first_token_s": ("that of a second question with", min),
        "decode_tps": ("tokens come fastest with", max),
    }
    firsts = []
    for key, (what, choose) in measures.items():
        able = {name: entry["medians"][key] for name, entry in peers.items() if entry["medians"].get(key)}
        firsts.append(f"{what} {choose(able, key=able.__getitem__)}")
    whole = {n: e["medians"]["peak_resident_bytes"] for n, e in peers.items() if e["medians"].get("first_token_s")}
    sentence = f"{', '.join(firsts)}; least memory takes {min(whole, key=whole.__getitem__)}."
    return sentence[0].upper() + sentence[1:]


def _amx(found: dict[str, Any]) -> str:
    """Whether the runtimes could use AMX in a comparison, where the processor has it."""
    has = any(flag.startswith("amx") for flag in found["machine"]["processor"]["flags"])
    return (" (its AMX refused to all)" if found.get("amx_refused") else " with AMX") if has else ""


def starter() -> str:
    """Accuracy of the starter, for the checkpoint and both bundles."""
    file = STARTER / "accuracy.json"
    if not file.exists():
        return ""
    found = json.loads(file.read_text())
    skills = found["skills"]
    rows = [
        [run["name"], run["view"], *(f"{100 * run['accuracy'][skill]:.1f}" for skill in [*skills, "overall"])]
        for run in found["runs"]
    ]
    head = ["what answered", "picture", *(f"{skill} (%)" for skill in [*skills, "overall"])]
    note = (
        f"{found['questions']} held-out questions a row: fonts, words, numbers and layouts that training never saw. "
        "Licence: Apache-2.0."
    )
    overall = [100 * run["accuracy"]["overall"] for run in found["runs"]]
    thumbnail = next(100 * run["accuracy"]["overall"] for run in found["runs"] if run["view"] == "thumbnail")
    bundles = [100 * run["accuracy"]["overall"] for run in found["runs"] if run["name"].startswith("bundle")]
    conclusion = (
        f"The tiles decide ({overall[0]:.1f} % of the answers are right, {thumbnail:.1f} % from "
        "the thumbnail alone), and "
        f"4-bit bundles with an int8 tower lose at most {overall[0] - min(bundles):.1f} points."
    )
    return f"## The starter\n\n{conclusion}\n\n{table(head, rows)}\n\n{note}"
