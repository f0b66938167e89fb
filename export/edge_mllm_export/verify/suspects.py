"""Which setting of an image processor explains that two of them give other pixels of the same picture."""

from __future__ import annotations

import numpy as np

from edge_mllm.arrays import FloatArray

_CHANNELS = 3
_CLOSE = 1e-3
"""Largest distance from a straight line, as a share of the values' range."""


def suspected_fields(theirs: FloatArray, ours: FloatArray) -> tuple[str, ...]:
    """Names of settings, the likeliest first.

    Args:
        theirs: Tiles float32 [tiles, 3, height, width] or packed patches [patches, 3 * values] of the reference.
        ours: The same of the bundle.
    """
    if theirs.shape != ours.shape:
        return ("size", "do_resize", "crop_size")
    lines = [_line(theirs, ours, channel) for channel in range(_CHANNELS)]
    if any(line is None for line in lines):
        return ("resample", "do_pad", "do_center_crop")
    slopes = [line[0] for line in lines if line is not None]
    if np.allclose(slopes, 1.0, atol=_CLOSE):
        return ("image_mean", "do_normalize")
    return ("image_std", "rescale_factor", "do_rescale", "do_normalize")


def _line(theirs: FloatArray, ours: FloatArray, channel: int) -> tuple[float, float] | None:
    """Slope and offset by which one channel of theirs is ours; None where it is not."""
    x, y = (each.reshape(len(each), _CHANNELS, -1)[:, channel].astype(np.float64).ravel() for each in (ours, theirs))
    spread = float(np.ptp(x))
    if spread == 0.0:
        return (1.0, float(y[0] - x[0])) if np.ptp(y) == 0.0 else None
    slope, offset = np.polyfit(x, y, 1)
    far = float(np.abs(slope * x + offset - y).max())
    return (float(slope), float(offset)) if far <= _CLOSE * max(float(np.ptp(y)), _CLOSE) else None
