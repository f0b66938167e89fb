"""Measurements that are made once and kept in build/plan/measured, so that a long series can be stopped and go on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

from shape_bundles import BUILD, ROOT

from edge_mllm.machine.fingerprint import fingerprint, package_versions
from edge_mllm.measure.bench.measure import Plan, describe_model, run_grid
from edge_mllm.measure.bench.result import Case, Run, read_result, result_to_dict


def kept_run(case: Case, plan: Plan, deadline: float) -> Run:
    """The run of a case, measured now unless it was before with the same bundle, runtime, libraries and machine.

    Args:
        case: What to measure.
        plan: How often.
        deadline: Of ``time.monotonic``; the program ends when a measurement would begin after it.
    """
    file = BUILD / "measured" / f"{_key(case, plan)}.json"
    if not file.exists():
        if time.monotonic() > deadline:
            sys.exit("time is up; the same command again goes on from here")
        label = f"{Path(case.model).stem} {case.engine} {case.images} x {case.image_width}x{case.image_height}"
        result = run_grid([case], plan, lambda text: print(f"{label}: {text}", flush=True))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result_to_dict(result)))
    (run,) = read_result(file).runs
    return run


def _key(case: Case, plan: Plan) -> str:
    about = {
        "case": dataclasses.asdict(case) | {"model": describe_model(case.model).sha256},
        "plan": dataclasses.asdict(plan),
        "machine": fingerprint(peaks=False).id,
        "versions": package_versions(),
        "runtime": _runtime(),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]


def _runtime() -> str:
    """Hash of the committed runtime, without what only reckons with measurements."""
    command = ["git", "-C", str(ROOT), "ls-tree", "-r", "HEAD:edge_mllm"]
    files = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    measured = [line for line in files if not line.partition("\t")[2].startswith("plan/")]
    return hashlib.sha256("\n".join(measured).encode()).hexdigest()
