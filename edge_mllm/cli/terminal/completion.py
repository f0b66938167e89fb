"""What a shell offers where a model is to be named."""

from __future__ import annotations

import glob
from pathlib import Path


def known_models(incomplete: str) -> list[str]:
    """Names that begin so: of the catalogue, of what was fetched, and of what lies here."""
    from edge_mllm.hub.catalogue import entries
    from edge_mllm.hub.resolve import records

    folder, _, start = incomplete.rpartition("/")
    places = sorted(Path(f"{folder}/" if folder else ".").glob(f"{glob.escape(start)}*"))
    here = [f"{folder}/{place.name}" if folder else place.name for place in places if _is_model(place)]
    names = [*(each.name for each in entries()), *(each.source for each in records()), *here]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _is_model(place: Path) -> bool:
    return place.suffix == ".gguf" or place.is_dir()
