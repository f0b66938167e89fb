"""The borders between the packages, held by tests: what may be imported, what may be named."""

from __future__ import annotations

import ast
import graphlib
import json
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {"torch", "transformers", "onnx", "gguf", "optimum", "onnxscript", "edge_mllm_export", "edge_mllm_quant"}
FAMILY_NAMES = re.compile(
    r"smolvlm|idefics|internvl|llava|qwen|gemma|minicpm|bluelm|ferret|lfm2|phi3|siglip|paligemma|molmo", re.IGNORECASE
)
RUNTIME = sorted((ROOT / "edge_mllm").rglob("*.py"))
PACKAGES = [ROOT / "edge_mllm", ROOT / "export", ROOT / "quant"]


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").split(".")[0])
    return found


def test_the_runtime_imports_nothing_of_the_workstation() -> None:
    """One exception: commands that hand in the export side import it inside a function."""
    for path in RUNTIME:
        forbidden = imported_modules(path) & FORBIDDEN
        if path.parent.name == "cli":
            forbidden -= {"edge_mllm_export"}
        assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"


def test_no_family_name_occurs_in_the_runtime() -> None:
    for path in RUNTIME:
        found = FAMILY_NAMES.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path.relative_to(ROOT)} names a family: {found and found.group()}"


def test_importing_the_runtime_is_light() -> None:
    code = "import edge_mllm, json, sys; print(json.dumps([m for m in sys.modules if '.' not in m]))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(json.loads(out.stdout))
    assert "edge_mllm" in loaded
    assert not loaded & (FORBIDDEN | {"llama_cpp", "onnxruntime"})


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("edge_mllm", "edge_mllm_export", "edge_mllm_quant")
    order = graphlib.TopologicalSorter(
        {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    )
    order.prepare()  # a CycleError names the circle


def test_no_folder_holds_more_than_fifteen_modules() -> None:
    folders = {path.parent for package in PACKAGES for path in package.rglob("*.py")}
    full = {
        folder.relative_to(ROOT).as_posix(): count
        for folder in folders
        if (count := sum(path.name != "__init__.py" for path in folder.glob("*.py"))) > 15
    }
    assert not full


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.name)
def test_modules_are_named_for_a_stage(package: Path) -> None:
    names = {path.name for path in package.rglob("*.py")}
    assert not names & {"utils.py", "helpers.py", "common.py", "misc.py"}


def test_modules_and_functions_stay_short() -> None:
    too_long = []
    for package in PACKAGES:
        for path in package.rglob("*.py"):
            text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
            if text.count("\n") > 300:
                too_long.append(f"{name}: {text.count(chr(10))} lines")
            too_long.extend(
                f"{name}:{node.name}"
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > 60
            )
    assert not too_long


def test_no_large_file_is_tracked_by_mistake() -> None:
    """Weights belong to the starter; what tools leave beside them does not."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    large = {str(file.relative_to(ROOT)) for file in files if file.is_file() and file.stat().st_size > 1 << 20}
    assert {name for name in large if not name.startswith(("starter/", "edge_mllm/starter.edge/"))} == set()
