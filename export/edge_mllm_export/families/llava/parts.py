"""What LLaVA-like families say of their tower: a CLIP or SigLIP that a projector follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from edge_mllm_export.checkpoint.checkpoint import Checkpoint
    from edge_mllm_export.families.family import Shapes


@dataclass(frozen=True, kw_only=True)
class TowerParts:
    """Three fields of a :class:`Family <edge_mllm_export.families.family.Family>`, for :mod:`.tower`."""

    config: Callable[[Checkpoint], Any]
    """The model's configuration."""
    projector: Callable[[], Any]
    """Imports the projector's class, a torch module made of that configuration."""
    newline: str | None = None
    """Name of the newline embedding, where there is one."""

    def shapes(self, checkpoint: Checkpoint) -> Shapes:
        """Every tensor of tower and projector, and the newline embedding."""
        from edge_mllm_export.families.llava import tower as llava_tower

        config = self.config(checkpoint)
        found = llava_tower.tower_shapes(config, self.projector())
        return found if self.newline is None else found | {self.newline: (config.text_config.hidden_size,)}

    def stored(self, checkpoint: Checkpoint, shapes: Shapes) -> Shapes:
        """Those that are used: layers behind the last one that the projector sees are not, nor is the newline here."""
        from edge_mllm_export.families.llava import tower as llava_tower

        return llava_tower.stored_shapes(self.config(checkpoint), shapes)

    def build(self, checkpoint: Checkpoint) -> torch.nn.Module:
        """Tower and projector with the checkpoint's weights, float32; nothing of the language model is loaded."""
        from edge_mllm_export.families.llava.tower import load_tower

        return load_tower(checkpoint, self.config(checkpoint), self.projector())
