"""What a caller asks for, and how many tokens that leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from edge_mllm.arguments import require
from edge_mllm.errors import SettingError
from edge_mllm.picture.reduction.areas import TokenArea

Method = Literal["uniform", "random", "pool", "diverse", "diverse-tile", "query", "query-tile", "blank", "duplicates"]
PIXEL_METHODS = ("blank", "duplicates")
_USAGE = "METHOD[:RATIO], such as uniform:1/2, random:0.5:SEED, pool:1/4, diverse:1/4, query:1/4, blank or duplicates:8"


@dataclass(frozen=True, kw_only=True)
class TokenReduction:
    """One way of having fewer visual tokens.

    ``uniform``: at equal distances in every tile. ``random``: drawn in every tile. ``pool``: averages of neighbouring
    tokens in every tile. ``diverse``: the tokens of a picture that differ most (DivPrune). ``query``: those that differ
    and fit the question (CDPruner). ``diverse-tile``, ``query-tile``: the same with a share for every tile of its own.
    ``blank``: tiles of one colour are left out before the tower. ``duplicates``: tiles that repeat an earlier one are.

    Raises:
        SettingError: A value is outside its range.
    """

    method: Method
    ratio: float = 0.5
    """Share of the tokens that stay, above 0; 1 changes nothing. Not for tiles."""
    levels: int = 8
    """Of 256: how far the values of a tile may lie apart to be blank, or from those of another to be its duplicate."""
    seed: int = 0
    """Of ``random``."""

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise SettingError(f"there is no image reduction '{self.method}'; use {_USAGE}")
        if not 0 < self.ratio <= 1:
            raise SettingError(f"the share of visual tokens to keep is {self.ratio}; it must be above 0 and at most 1")
        if not 0 <= self.levels < 256 or self.seed < 0:
            raise SettingError(f"levels must be 0 to 255 and a seed not negative, got {self.levels} and {self.seed}")

    @staticmethod
    def parse(text: str) -> TokenReduction:
        """Read ``METHOD[:RATIO]``; a ratio is a decimal or a fraction, of ``blank`` and ``duplicates`` the levels.

        Raises:
            SettingError: It says something else.
        """
        name, *numbers = text.strip().split(":")
        method = next((each for each in get_args(Method) if each == name), None)
        if method is None or len(numbers) > (2 if method == "random" else 1):
            raise SettingError(f"cannot read the image reduction '{text}'; use {_USAGE}")
        try:
            if method in PIXEL_METHODS:
                return TokenReduction(method=method, **({"levels": int(numbers[0])} if numbers else {}))
            ratio = _ratio(numbers[0]) if numbers else TokenReduction.ratio
            return TokenReduction(method=method, ratio=ratio, seed=int(numbers[1]) if len(numbers) > 1 else 0)
        except (ValueError, ZeroDivisionError) as error:
            raise SettingError(f"cannot read the image reduction '{text}'; use {_USAGE}") from error

    @property
    def text(self) -> str:
        """As :meth:`parse` reads it, all numbers written out."""
        if self.on_pixels:
            return f"{self.method}:{self.levels}"
        return f"{self.method}:{self.ratio:g}" + (f":{self.seed}" if self.method == "random" else "")

    @property
    def on_pixels(self) -> bool:
        """Whether whole tiles are left out before the tower."""
        return self.method in PIXEL_METHODS

    @property
    def thins(self) -> bool:
        """Whether tokens are dropped between tower and decoder."""
        return not self.on_pixels and self.ratio < 1

    @property
    def needs_rows(self) -> bool:
        """Whether the tokens that stay are known only when the embeddings are."""
        return self.needs_query or self.method in ("diverse", "diverse-tile")

    @property
    def needs_query(self) -> bool:
        """Whether they depend on the question."""
        return self.method in ("query", "query-tile")

    @property
    def per_picture(self) -> bool:
        """Whether one share is given out over all tiles of a picture, instead of the same to every tile."""
        return self.method in ("diverse", "query")

    def count(self, areas: Sequence[TokenArea]) -> int:
        """Visual tokens that stay of a picture, the same for every content. Line ends always stay."""
        if not self.thins:
            return sum(area.tokens for area in areas)
        if self.method == "pool":
            return sum(area.pooled(self.ratio).tokens for area in areas)
        if self.per_picture:
            return share(sum(area.content for area in areas), self.ratio) + sum(area.ends for area in areas)
        return sum(share(area.content, self.ratio) + area.ends for area in areas)


def reduction_of(value: TokenReduction | str | None) -> TokenReduction | None:
    """What a caller gave, as text or as itself.

    Raises:
        SettingError: The text says nothing that can be done.
    """
    if value is not None and not isinstance(value, str):
        require("reduction", value, TokenReduction, "text such as diverse:1/4, or a TokenReduction")
    return TokenReduction.parse(value) if isinstance(value, str) else value


def share(count: int, ratio: float) -> int:
    """``ratio`` of ``count``, rounded half up, at least one where there is one."""
    return min(count, max(1, math.floor(count * ratio + 0.5)))


def _ratio(text: str) -> float:
    above, slash, below = text.partition("/")
    return int(above) / int(below) if slash else float(text)
