"""How a family's published ONNX directories are read without an export, as data for the runtime.

A family says it once, in ``Family.published``, with these words; :mod:`.runtime_layouts` writes all of them to the
file that the runtime ships. :mod:`edge_mllm.bundle.published.rules` says what an entry means.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edge_mllm_export.families.image_settings import PILLOW_FILTERS

if TYPE_CHECKING:
    from edge_mllm.bundle.spec import TileLayout

Entry = dict[str, Any]
_NOTHING = object()


def read(*paths: str, default: Any = _NOTHING) -> Entry:
    """The first of the paths that is there, for example ``config.text_config.hidden_size``; else the default."""
    return {"read": list(paths)} | ({} if default is _NOTHING else {"default": default})


def image(tiler: Entry, *, resample: str, mean: list[float], std: list[float]) -> Entry:
    """The image section: a tiler, and what the processor's class does where its file says nothing."""
    names = {str(value): name for value, name in PILLOW_FILTERS.items()}
    return {
        "tiler": tiler,
        "resample": read("processor.resample", default=resample) | {"names": names},
        "rescale": read("processor.rescale_factor", default=1 / 255),
        "mean": read("processor.image_mean", default=mean),
        "std": read("processor.image_std", default=std),
    }


def prompt(
    image_token: Entry, declared: list[str], layout: TileLayout, stop_texts: list[str], picture: str | None = None
) -> Entry:
    """The prompt section.

    Args:
        image_token: Its text.
        declared: Where config.json says its id, which must be the tokenizer's.
        layout: The text around visual tokens.
        stop_texts: Tokens that end an answer beside those of generation_config.json.
        picture: What stands for a picture in a template that takes texts; None: the image token.
    """
    found = {"image_token": image_token, "declared": declared, "layout": asdict(layout), "stop_texts": stop_texts}
    return found | ({} if picture is None else {"picture": picture})


def decoder(**more: Any) -> Entry:
    """The decoder section of a language model under its usual names; older files have them at the top level."""

    def field(name: str, **default: Any) -> Entry:
        return read(f"config.text_config.{name}", f"config.{name}", **default)

    return {
        "n_embd": field("hidden_size"),
        "n_vocab": field("vocab_size"),
        "n_layer": field("num_hidden_layers"),
        "context_length": field("max_position_embeddings"),
        "head_dim": field("head_dim", default=None),
        **more,
    }


def required(*steps: str) -> Entry:
    """Steps of the image processor that must not be switched off."""
    return {f"processor.{step}": True for step in steps}


def grids(points: Entry, tile: Entry) -> Entry:
    """Rows and columns of tiles, from heights and widths in pixels."""
    return {"in_tiles": points, "tile": tile}


def number_behind(beginning: str, text: Entry) -> Entry:
    """The whole number at the end of a text that begins so."""
    return {"number": text, "after": beginning}


def colour(mean: Entry) -> Entry:
    """A mean as an 8-bit colour."""
    return {"colour": mean}


def refused(model_type: str, reason: str) -> Entry:
    """Published files of this kind of model do not compute what it is; whoever opens one is told the reason."""
    return {"model_types": [model_type], "refused": reason}
