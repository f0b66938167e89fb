"""Instructions of aarch64 for a tile, a prompt token and an answer's token: ours, libmtmd's and llama.cpp's.

    sudo python benchmarks/arm_counts.py                 # or: make arm-counts
    python benchmarks/arm_counts.py --models smolvlm-500m --layers 1 --processors i8mm --parts "tower int8"

These are counts and not times: they come from an emulator that knows no caches, no memory and no pipelines, and say
which kernels run and how much they do. A plug-in of QEMU counts what one thread executes between marks that
``arm/guest.py`` sets around each part; the starter is whole, published shapes have one layer of tower and decoder (and
two, for what one more layer takes). Everything is done twice, and counts of both are kept. What was counted stays in
build/arm_counts until the files that it depends on change, so that a long series can be stopped and goes on; results
are in benchmarks/results/arm_counts.json. It needs root and what tests/aarch64_check.py needs, and the packages
qemu-user (whose emulator, unlike the static one, takes plug-ins), gcc and gcc-aarch64-linux-gnu.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from arm.cut_models import BUILD, STARTER, CutModel, layers_of, make_model  # noqa: E402
from arm.emulator import PROCESSORS, Emulated, difference  # noqa: E402

from edge_mllm.machine.fingerprint import checkout_commit  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "arm_counts.json"
SHAPES = ("smolvlm-500m", "internvl3-1b")
PARTS = ("tower int8", "libmtmd q8_0", "onnx", "onnx, int8 prompt", "gguf", "llama.cpp", "tower fp32", "libmtmd f16")
"""As arm/guest.py has them; those that an emulator is slow with come last."""
LLAMA = {"libmtmd q8_0", "libmtmd f16", "gguf", "llama.cpp"}
"""Parts that need llama.cpp."""


def main() -> None:
    """Count what was asked for, and write each part when it is counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join((STARTER, *SHAPES)), help="with commas between")
    parser.add_argument("--layers", default="1,2", help="of shapes, with commas between")
    parser.add_argument("--processors", default=",".join(PROCESSORS), help="with commas between")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, metavar="PART")
    parser.add_argument("--again", action="store_true", help="count again what is kept")
    given = parser.parse_args()
    models = [
        CutModel(name, layers)
        for name in given.models.split(",")
        for layers in ([None] if name == STARTER else map(int, given.layers.split(",")))
    ]
    folders = {model: make_model(model) for model in models}
    for processor in given.processors.split(","):
        emulated = Emulated(processor, llama=not LLAMA.isdisjoint(given.parts))
        for part in given.parts:
            for model in models:
                kept = BUILD / "kept" / f"{_key(folders[model], part, processor)}.json"
                if given.again or not kept.exists():
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_text(json.dumps(count(emulated, folders[model], part)))
                _write(emulated, processor, model, part, json.loads(kept.read_text()))


def count(emulated: Emulated, folder: Path, part: str) -> dict[str, Any]:
    """One part of a model: versions, and stage -> units of a run and counts of every run."""
    start = time.perf_counter()
    printed, marks = emulated.python("/counts/guest.py", f"/counts/models/{folder.name}/model.edge", part)
    told = json.loads(printed.splitlines()[-1])
    if told["machine"] != "aarch64" or len(marks) != 2 * len(told["pieces"]):
        sys.exit(f"{part} of {folder.name}: {len(marks)} marks on {told['machine']} for {len(told['pieces'])} pieces")
    stages: dict[str, Any] = {}
    for number, piece in enumerate(told.pop("pieces")):
        stage = stages.setdefault(piece["stage"], {"units": piece["units"], "runs": []})
        stage["runs"].append(difference(*marks[2 * number : 2 * number + 2]))
    seconds = round(time.perf_counter() - start)
    return told | {"threads_started": marks[-1]["threads"], "emulated_in_s": seconds, "stages": stages}


def _write(emulated: Emulated, processor: str, model: CutModel, part: str, found: dict[str, Any]) -> None:
    """Put a part into the result file, and say what a unit takes."""
    result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"models": {}, "processors": {}}
    known, versions = result.get("versions", {}), found.pop("versions")
    if any(known.get(package, version) != version for package, version in versions.items()):
        sys.exit(f"{RESULTS} holds counts of other versions, {known}; remove it to count everything anew")
    result |= {
        "schema": "edge-mllm-arm-counts/1",
        "about": "counts of instructions in an emulator, not times",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": checkout_commit(),
        "emulator": emulated.version,
        "threads": 1,
        "versions": known | versions,
    }
    about = emulated.processor
    result["processors"][processor] = {"qemu_cpu": about.qemu, "llama_cpp_built_for": about.llama, "about": about.about}
    entry = result["models"].setdefault(model.title, {"name": model.name, "layers": model.layers, "processors": {}})
    if model.layers is not None:
        entry["layers_in_full"] = layers_of(model.name)
    entry["processors"].setdefault(processor, {})[part] = found
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    for stage, counted in found["stages"].items():
        runs = [run["all"] / counted["units"] for run in counted["runs"]]
        print(f"{model.title}, {processor}, {part}, {stage}: {', '.join(f'{run / 1e6:.3f}' for run in runs)} million")


def _key(folder: Path, part: str, processor: str) -> str:
    """Hash of what a count depends on."""
    runtime = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD:edge_mllm"], capture_output=True, text=True, check=True
    ).stdout
    about = [folder.name, part, processor, runtime, (folder / "made").read_text()]
    about += [str(PROCESSORS[processor]), (ROOT / "constraints.txt").read_text()]
    about += [(Path(__file__).parent / "arm" / name).read_text() for name in ("guest.py", "count_instructions.c")]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]


if __name__ == "__main__":
    main()
