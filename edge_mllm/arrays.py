"""The kinds of arrays that modules hand to each other."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
"""Embeddings, pixels after normalisation, logits: float32, or a narrower kind only where a docstring says so."""
IntArray = npt.NDArray[np.int64]
"""Token ids and places."""
RgbArray = npt.NDArray[np.uint8]
"""Decoded pixels, uint8 [height, width, 3]."""
