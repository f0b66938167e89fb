"""Settings of image processors, at random and from tables: what the reference makes of them, and what we do."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from family_makers import make_tiny
from family_parity import Pair
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from image_settings import picture

from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.registry import find_family

if TYPE_CHECKING:
    from collections.abc import Iterator

Fields = dict[str, Any]
FAMILIES = (
    *("idefics3", "internvl", "llava", "llava_next", "llava_onevision"),
    *("bluelm_v", "ferret_ui", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "gemma3"),
)
PICTURES = ((70, 33), (25, 90), (48, 48))
"""Width and height."""
ABSENT = "(absent)"
MANY = 300
"""Random settings of a family in a long sweep."""


@dataclass(frozen=True)
class Outcome:
    """One set of settings through both."""

    equal: bool | None
    """Whether pixels and ids are; None where one of the two gave none."""
    ours: CheckpointError | None
    theirs: Exception | None


class Settings:
    """A tiny checkpoint whose image processor can be set otherwise."""

    def __init__(self, family: str, home: Path) -> None:
        self.family = family
        self.directory = make_tiny(family, home)
        self.file = self.directory / "preprocessor_config.json"
        self.published: Fields = json.loads(self.file.read_text(encoding="utf-8"))

    def compare(self, change: Fields, *, only: bool = False) -> Outcome:
        """Both, with some fields changed.

        Args:
            change: Field -> value, or :data:`ABSENT`.
            only: Leave out every field that is not in the change.
        """
        fields = {} if only else dict(self.published)
        fields |= change
        kept = {name: value for name, value in fields.items() if value != ABSENT}
        self.file.write_text(json.dumps(kept), encoding="utf-8")
        with _one_tokenizer():
            try:
                checkpoint = open_checkpoint(self.directory)
                kind = find_family(checkpoint)
                kind.image(checkpoint), kind.vision(checkpoint)
            except CheckpointError as error:
                return Outcome(None, error, None)
            try:
                pair = Pair(self.directory)
                found = [pair.compare([picture(*size)]) for size in PICTURES]
            except Exception as error:  # whatever the reference makes of them
                return Outcome(None, None, error)
        return Outcome(all(each.pixels_equal and each.ids_equal for each in found), None, None)

    def restored(self) -> None:
        """Put the published settings back."""
        self.file.write_text(json.dumps(self.published), encoding="utf-8")


@contextmanager
def _one_tokenizer() -> Iterator[None]:
    """Load a directory's tokenizer once: only the image processor's settings change."""
    from transformers import AutoTokenizer

    original = AutoTokenizer.from_pretrained

    def cached(path: Path) -> Any:
        if path not in _TOKENIZERS:
            _TOKENIZERS[path] = original(path)
        return _TOKENIZERS[path]

    with patch.object(AutoTokenizer, "from_pretrained", cached):
        yield


_TOKENIZERS: dict[Path, Any] = {}


def seldom(usual: list[Any], *odd: Any) -> st.SearchStrategy[Any]:
    """Mostly one of the usual values."""
    repeats = 5 * len(odd) // len(usual) + 1
    return st.sampled_from([*(usual * repeats), *odd])


_LEVELS = st.lists(st.sampled_from([0.2, 0.45, 0.5, 0.6, 0.9]), min_size=3, max_size=3)
_STEP = (None, False)


def _square_sizes(side: int) -> st.SearchStrategy[Any]:
    square = {"height": side, "width": side}
    odd = [{"height": side, "width": 2 * side}, {"longest_edge": side}, side + 8, {"shortest_edge": side // 2}, None]
    return seldom([square, square, {"shortest_edge": side}, side, [side, side]], *odd)


def _common() -> dict[str, st.SearchStrategy[Any]]:
    """Fields that every class reads."""
    return {
        "do_resize": seldom([True], *_STEP),
        "do_rescale": seldom([True, True, True], None, False, "yes"),
        "rescale_factor": seldom([1 / 255, 1 / 127.5, 1.0], None, 0),
        "do_normalize": st.sampled_from([True, True, None, False]),
        "image_mean": st.one_of(_LEVELS, _LEVELS, _LEVELS, seldom([0.5], None, [0.5, 0.5])),
        "image_std": st.one_of(_LEVELS, _LEVELS, _LEVELS, seldom([0.5], None, [0.5, 0.0, 0.5])),
        "resample": seldom([0, 1, 2, 3, 4, 5], None, "bicubic", 9),
        "do_pad": st.sampled_from([True, None, False]),
        "do_convert_rgb": st.sampled_from([True, None, False]),
        "do_center_crop": st.sampled_from([True, None, False]),
        "default_to_square": seldom([True, False], None),
        "data_format": st.sampled_from(["channels_first", None]),
        "pad_size": seldom([None, {"height": 32, "width": 32}], {"height": 40, "width": 40}),
    }


def _of_family(family: str, published: Fields) -> dict[str, st.SearchStrategy[Any]]:
    """What the class of this family reads beside them, around its published values."""
    kind = str(published["image_processor_type"])
    kinds = {"image_processor_type": seldom([kind, f"{kind}Fast", f"{kind}Pil"], "BlipImageProcessor", None)}
    if family == "idefics3":
        longest = [{"longest_edge": 128}, {"longest_edge": 96}, {"longest_edge": 32}]
        return kinds | {
            "image_processor_type": st.sampled_from([kind, "SmolVLMImageProcessor", "SmolVLMImageProcessorFast"]),
            "size": seldom(longest, {"height": 64, "width": 64}, 64, None),
            "max_image_size": seldom([{"longest_edge": 32}], None, 32),
            "do_image_splitting": st.sampled_from([True, None, False]),
        }
    if family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5"):
        bounds, patch = {"shortest_edge": 3136, "longest_edge": 40000}, int(published["patch_size"])
        return kinds | {
            "size": seldom(
                [bounds, None], {"min_pixels": 3136, "max_pixels": 40000}, {"height": 56, "width": 56}, 3136
            ),
            "min_pixels": seldom([3136, 1568, None], 0),
            "max_pixels": seldom([50176, 12544, None], 100),
            "patch_size": seldom([patch], None, 30 - patch),
            "merge_size": seldom([2], None, 1),
            "temporal_patch_size": seldom([2], None),
        }
    side = published["size"].get("height", published["size"].get("shortest_edge"))
    found = kinds | {"size": _square_sizes(side), "crop_size": _square_sizes(side)}
    if family == "llava":
        names = ["CLIPImageProcessor", "LlavaImageProcessor", "LlavaImageProcessorFast", "SiglipImageProcessor"]
        return found | {"image_processor_type": seldom([*names, None], "ViTImageProcessor")}
    if family == "internvl":
        patches = {"min_patches": seldom([1, 2], None, 0), "max_patches": seldom([1, 4, 12], None, 0)}
        return found | patches | {"crop_to_patches": st.sampled_from([True, None, False])}
    if family == "gemma3":
        return found | {"do_pan_and_scan": st.sampled_from([True, None, False])}
    return found | {"image_grid_pinpoints": seldom([published["image_grid_pinpoints"]], None)}


def random_settings(family: str, published: Fields) -> st.SearchStrategy[Fields]:
    """Some fields of the image processor's settings, each with a value that a class may be given or must refuse."""
    fields = _common() | _of_family(family, published)
    needed = {"size", "max_image_size"} if family == "idefics3" else set()  # the class's own make too many tiny tiles
    values = {
        name: value if name in needed else st.one_of(value, value, st.just(ABSENT)) for name, value in fields.items()
    }
    return st.fixed_dictionaries({}, optional=values)


def sweep(family: Settings, count: int) -> Counter[str]:
    """Compare random settings; how many were equal, and how many were refused."""
    seen: Counter[str] = Counter()

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(random_settings(family.family, family.published))
    def compared(change: dict[str, Any]) -> None:
        found = family.compare(change)
        if found.ours is not None:
            seen["refused"] += 1
            assert found.ours.field, found.ours
            assert found.ours.file.endswith(".json")
            return
        assert found.theirs is None, f"the reference refuses what is taken here: {found.theirs}"
        assert found.equal, "pixels or ids differ"
        seen["equal"] += 1

    compared()
    family.restored()
    return seen
