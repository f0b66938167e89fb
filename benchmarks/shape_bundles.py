"""Bundles of ``shape:`` models that several measurements share: exported once, found again."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "plan"
PEERS = ROOT / "build" / "peers"


def bundle_of(name: str, *folders: Path, engines: tuple[str, ...] = ("onnx", "gguf")) -> Path:
    """The bundle of a shape: one that is there, else a new one in :data:`BUILD`.

    Args:
        name: After ``shape:``, or a checkpoint directory.
        folders: Looked into first, for NAME.edge and for NAME/model.edge; :data:`BUILD` and :data:`PEERS` come last.
        engines: Decoders of a new bundle.
    """
    from edge_mllm_export import ExportOptions, export_bundle

    own = BUILD / f"{Path(name).name}.edge"
    for folder in (*folders, BUILD, PEERS):
        for place in (folder / own.name, folder / own.stem / "model.edge"):
            if (place / "bundle.json").is_file():
                return place
    BUILD.mkdir(parents=True, exist_ok=True)
    formats = engines[0] if len(engines) == 1 else "both"
    options = ExportOptions(format=formats, verify=False, calibration=False)  # type: ignore[arg-type]
    export_bundle(source_of(name), own, options, print)
    return own


def source_of(name: str) -> str:
    """What ``export`` and ``plan`` call it."""
    return name if Path(name).is_dir() else f"shape:{name}"
