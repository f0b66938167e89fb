"""What a search found about the tower's library, where the first picture looks for it."""

from __future__ import annotations

from pathlib import Path

from edge_mllm.bundle.published.directory import PublishedDirectory
from edge_mllm.measure.tune.search import Found
from edge_mllm.session.files import open_files
from edge_mllm.tower.placement import cpu_placements
from edge_mllm.tower.remembered import ChoiceMemory


def remember_tower(path: Path, found: Found) -> None:
    """Keep the winner's library for its number of threads, so that no first picture measures again.

    Nothing is kept where there was no choice (of layouts that are no bundle, of towers with one library) or where time
    ran out before each was tried.

    Args:
        path: The model.
        found: With every trial.

    Raises:
        OSError: The disk is full or the cache folder cannot be written to.
    """
    files, best = open_files(path, check_hashes=False), found.best.settings
    if isinstance(files, PublishedDirectory):
        return
    engines, seconds = [place.engine for place in cpu_placements(files.spec)], dict[str, float]()
    for trial in found.trials:
        tower = trial.settings.tower
        seconds[tower] = min(trial.tile_s, seconds.get(tower, trial.tile_s))
    refused = {name: reason for name, _, reason in (each.partition(": ") for each in found.refused) if name in engines}
    if len(engines) == 1 or not {*engines} <= {*seconds, *refused}:
        return
    memory = ChoiceMemory(files.spec, best.threads)
    memory.replace(
        memory.chosen(
            best.tower,
            "tune",
            seconds=seconds,
            passed={name: reason for name, reason in refused.items() if name not in seconds},
            measured_s=0.0,
        )
    )
