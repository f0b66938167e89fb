"""The map that the tokens of a grid of tiles make together, without the part of it that shows padding."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_mllm.bundle.tilers import Stitch

TOO_MANY = 1.1
"""A map is shrunk when its side is more than so many times what the limit allows (Li et al., arXiv 2408.03326)."""


@dataclass(frozen=True)
class TokenMap:
    """A window of the whole map, and the size it is brought to."""

    top: int
    left: int
    rows: int
    cols: int
    new_rows: int
    """Equal to ``rows`` where the window is not shrunk."""
    new_cols: int
    newlines: bool = True
    """Whether a newline ends every row."""

    @property
    def shrunk(self) -> bool:
        """Whether the window gets another size."""
        return (self.rows, self.cols) != (self.new_rows, self.new_cols)

    @property
    def tokens(self) -> int:
        """Tokens of the map, the newline of every row included."""
        return self.new_rows * (self.new_cols + int(self.newlines))


def token_map(picture: tuple[int, int], grid: tuple[int, int], tokens_per_tile: int, stitch: Stitch) -> TokenMap:
    """Cut the padding off, then shrink what is still too large; a plain map stays whole.

    The order of the float operations is that of ``unpad_image`` and ``pack_image_features`` in transformers
    (Apache-2.0): another order lands on another integer for some sizes, and then the prompt has another length.

    Args:
        picture: Width and height in pixels.
        grid: Rows and columns of tiles.
        tokens_per_tile: A square number.
        stitch: How the tiles are put together.
    """
    width, height = picture
    side = math.isqrt(tokens_per_tile)
    rows, cols = grid[0] * side, grid[1] * side
    if stitch.plain:
        return TokenMap(0, 0, rows, cols, rows, cols, newlines=False)
    top = left = 0
    if width / height > cols / rows:
        top = (rows - int(round(height * (cols / width), 7))) // 2
    else:
        left = (cols - int(round(width * (rows / height), 7))) // 2
    rows, cols = rows - 2 * top, cols - 2 * left
    new_rows, new_cols = rows, cols
    if stitch.max_tiles is not None:
        times = math.sqrt(rows * cols / (stitch.max_tiles * side**2))
        if times > TOO_MANY:
            new_rows, new_cols = int(rows // times), int(cols // times)
    return TokenMap(top, left, rows, cols, new_rows, new_cols)
