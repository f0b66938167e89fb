"""Build the wheel, install it alone into an empty environment, and ask the starter a question there.

What this catches and an editable checkout cannot: files missing from the wheel, generic names in site-packages,
a heavy import in the base install.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = {"edge_mllm", "edge_mllm_export", "edge_mllm_quant"}
HEAVY = {"torch", "transformers", "llama_cpp", "onnx", "gguf"}
PROBE = """
import json, sys, time
start = time.perf_counter()
import edge_mllm
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "modules": sorted(m.split(".")[0] for m in sys.modules)}))
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command, return its standard output, stop with its errors when it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Check names in the wheel, the clean install, what is imported and one answer."""
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", scratch, ROOT, cwd=scratch)
        (wheel,) = scratch.glob("*.whl")
        page = "edge_mllm/serve/page/"
        missing = {f"{page}{file.name}" for file in (ROOT / page).iterdir()} - set(zipfile.ZipFile(wheel).namelist())
        assert not missing, f"the wheel lacks {sorted(missing)}"
        names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
        extra = {name for name in names if not name.endswith(".dist-info")} - TOP_LEVEL
        assert not extra, f"the wheel puts {sorted(extra)} into site-packages"
        venv.create(scratch / "env", with_pip=True)
        python = scratch / "env" / "bin" / "python"
        run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=scratch)
        probes = [json.loads(run(python, "-c", PROBE, cwd=scratch)) for _ in range(3)]
        loaded = HEAVY & set(probes[0]["modules"])
        assert not loaded, f"import edge_mllm pulls in {sorted(loaded)}"
        fastest = min(probe["seconds"] for probe in probes)
        picture = ROOT / "starter" / "demo" / "label.png"
        answer = json.loads(
            run(scratch / "env" / "bin" / "edge-mllm", "run", "-i", picture, "--json", "What does it say?", cwd=scratch)
        )
        assert answer["text"].strip() == "Coffee $4.60", f"the starter bundle answered {answer['text']!r}"
        size = wheel.stat().st_size / 1e6
        print(f"wheel {size:.1f} MB, import {fastest * 1000:.0f} ms, the starter answered {answer['text'].strip()!r}")


if __name__ == "__main__":
    main()
