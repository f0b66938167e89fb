"""Verify the starter's bundle again as it is; only the ``verification`` section of its bundle.json changes.

``make starter-verification``. An export on another processor calibrates to other codes, so ``make starter-bundle``
gives another decoder; this keeps the one that ships.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from edge_mllm.bundle.files import read_bundle
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.families.task import resolve_task
from edge_mllm_export.job import Job
from edge_mllm_export.options import ExportOptions, choose_recipes
from edge_mllm_export.source.source import resolve_source
from edge_mllm_export.verify.verify import verify_bundle
from edge_mllm_export.write.place import write_manifest

ROOT = Path(__file__).resolve().parents[1]
BUNDLE, CHECKPOINT = ROOT / "edge_mllm" / "starter.edge", ROOT / "starter" / "checkpoint"


def main() -> None:
    """Verify, and write what was found."""
    spec, options = read_bundle(BUNDLE).spec, ExportOptions()
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = resolve_source(str(CHECKPOINT), Path(scratch))
        family = find_family(checkpoint)
        job = Job(checkpoint, family, choose_recipes(options), BUNDLE, Path(scratch))
        found = verify_bundle(job, resolve_task(checkpoint, family), spec, options)
    write_manifest(replace(spec, verification=found), BUNDLE)


if __name__ == "__main__":
    main()
