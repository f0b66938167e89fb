"""A tiny MiniCPM-V 4.7 of random weights: the predecessor's, with the ids of marks that canvases are laid out by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_minicpm_v_4_6 import make_tiny_minicpm_v_4_6

SHAPE = "minicpm-v-4.7-1b"


def make_tiny_minicpm_v_4_7(directory: Path, *, sections: tuple[int, ...] = (6, 5, 5), **settings: Any) -> Path:
    """Write a complete tiny MiniCPMV4_7ForConditionalGeneration checkpoint directory and return it.

    Args:
        directory: Where to write.
        sections: How rotary frequencies are shared among time, row and column; 16 of them in all.
        **settings: As :func:`tiny_minicpm_v_4_6.make_tiny_minicpm_v_4_6` takes them.
    """
    rotary = {
        "rope_type": "default",
        "rope_theta": 10000000.0,
        "partial_rotary_factor": 0.25,
        "mrope_interleaved": True,
        "mrope_section": list(sections),
    }
    given: dict[str, Any] = {"rope_parameters": rotary} | settings
    return make_tiny_minicpm_v_4_6(directory, name=SHAPE, **given)
