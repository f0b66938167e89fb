"""How far keys and values go."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_mllm.arrays import FloatArray


class CachePeaks:
    """The largest absolute key and value of each channel, layer by layer."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[FloatArray, FloatArray]] = {}

    def take(self, cache: Any) -> None:
        """Take in a cache of transformers; layers that keep no keys and values are left out."""
        for number, layer in enumerate(cache.layers):
            if getattr(layer, "keys", None) is not None:
                self.see(number, layer.keys.float().numpy(), layer.values.float().numpy())

    def see(self, layer: int, keys: FloatArray, values: FloatArray) -> None:
        """Take in keys and values float32 [1, heads, positions, head_dim], the keys with their rotation."""
        new = tuple(np.abs(array).max(axis=(0, 2)) for array in (keys, values))
        old = self.layers.get(layer, new)
        self.layers[layer] = (np.maximum(old[0], new[0]), np.maximum(old[1], new[1]))
