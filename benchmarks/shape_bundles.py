"""Bundles of ``shape:`` models that several measurements share: exported once, found again."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "plan"
sys.path.insert(0, str(ROOT / "benchmarks" / "peers"))  # before a package of the same name as one of its modules


def bundle_of(
    name: str, *folders: Path, engines: tuple[str, ...] = ("onnx", "gguf"), prompt_weights: str | None = None
) -> Path:
    """The bundle of a shape: one in the folders, else one in :data:`BUILD`, made again when the exporter changes.

    Args:
        name: After ``shape:``, or a checkpoint directory.
        folders: Looked into first, for NAME.edge and for NAME/model.edge; taken as they are.
        engines: Decoders of a new bundle.
        prompt_weights: Of a new bundle.
    """
    from material import exporter

    from edge_mllm_export import ExportOptions, export_bundle

    own = BUILD / f"{Path(name).name}{'' if prompt_weights is None else '-prompt'}.edge"
    for folder in folders:
        for place in (folder / f"{Path(name).name}.edge", folder / Path(name).name / "model.edge"):
            if (place / "bundle.json").is_file():
                return place
    mark = own.with_suffix(".mark")
    found, _, decoders = mark.read_text().rpartition("\n") if own.exists() and mark.exists() else ("", "", "")
    if found != exporter().strip() or not set(engines) <= set(decoders.split(",")):
        BUILD.mkdir(parents=True, exist_ok=True)
        options = ExportOptions(
            format=engines[0] if len(engines) == 1 else "both",  # type: ignore[arg-type]
            verify=False,
            calibration=False,
            force=True,
            prompt_weights=prompt_weights,
        )
        export_bundle(source_of(name), own, options, print)
        mark.write_text(f"{exporter().strip()}\n{','.join(engines)}")
    return own


def source_of(name: str) -> str:
    """What ``export`` and ``plan`` call it."""
    return name if Path(name).is_dir() else f"shape:{name}"
