"""One export: what is written, from what, and where to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_mllm_export.calibrate.calibration import Calibration
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint
    from edge_mllm_export.families.family import Family
    from edge_mllm_export.options import KVPrecision
    from edge_mllm_export.targets import Target
    from edge_mllm_quant.recipes.recipe import Component, Recipe
    from edge_mllm_quant.tower.watching import Feeds
    from edge_mllm_quant.weights.activations import Moments

Announce = Callable[[str], None]
"""Called with the name of each step as it begins."""


@dataclass(frozen=True)
class Job:
    """What is exported, and where to."""

    checkpoint: Checkpoint
    family: Family
    recipes: Mapping[Component, Recipe]
    staging: Path
    """Becomes the bundle."""
    work: Path
    """Scratch space on the same disk; deleted before the bundle appears."""
    calibration: Calibration | None = None
    """What the decoder's layers saw; None where nothing was measured."""
    kv: KVPrecision | None = None
    """How decoder.onnx keeps keys and values."""
    tower_samples: tuple[Feeds, ...] = ()
    """Inputs that decide how the tower is quantised."""
    targets: tuple[Target, ...] = ()
    """NPUs that the tower is also written for."""
    npu_samples: tuple[Feeds, ...] = ()
    """Inputs that decide scales for them, or that they are compared on."""

    @property
    def moments(self) -> Mapping[str, Moments]:
        """Second moments by layer; none without calibration."""
        return self.calibration.moments if self.calibration else {}
