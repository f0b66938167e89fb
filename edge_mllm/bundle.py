"""bundle.json as frozen dataclasses: the border between export and runtime.

The export side fills these from a checkpoint's own configuration; the runtime reads nothing else. Names here are
mechanisms (a tiler, a resize filter, a position scheme), never model families. Reading and checking a bundle
directory is in :mod:`edge_mllm.bundle_files`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from edge_mllm.tilers import Tiler

SCHEMA_VERSION = 1

Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
Positions = Literal["sequential", "mrope"]
ImageAttention = Literal["causal", "bidirectional"]
Engine = Literal["onnx", "gguf"]


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """How 8-bit RGB becomes the tower's input, exactly as the model's own processor does it.

    A pixel value v of channel c becomes ``(float32(v * rescale) - mean[c]) / std[c]``.
    """

    tiler: Tiler
    resample: Resample
    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    several: Tiler | None = None
    """Tiler of a picture that shares its conversation with others; None where that makes no difference."""

    def tiler_for(self, pictures: int) -> Tiler:
        """The model's own tiler of a picture in a conversation that has so many."""
        return self.tiler if self.several is None or pictures < 2 else self.several


@dataclass(frozen=True, kw_only=True)
class TileLayout:
    """The text around one picture's visual tokens, as plain strings.

    ``{row}``, ``{col}`` (1-based) and ``{index}`` (1-based, in tile order) are filled in ``before_tile``. A picture of
    several tiles reads: before_image, then per row its tiles (before_tile, visual tokens, after_tile) and after_row,
    with the global tile (before_global, visual tokens, after_global) first or last, then after_image. A picture of a
    single tile, or whose tiles are stitched, reads: before_image, before_single, visual tokens, after_single,
    after_image.
    """

    before_image: str = ""
    before_tile: str = ""
    after_tile: str = ""
    after_row: str = ""
    before_global: str = ""
    after_global: str = ""
    before_single: str = ""
    after_single: str = ""
    after_image: str = ""


@dataclass(frozen=True, kw_only=True)
class PromptSpec:
    """How messages and pictures become token ids."""

    image_token: str
    """The token that is repeated once per visual token; its id marks where embeddings are spliced in."""
    image_token_id: int
    placeholder: str
    """What the chat template writes for one picture; replaced by the picture's layout."""
    layout: TileLayout
    stop_token_ids: tuple[int, ...]
    bos_token_id: int | None = None
    """Prepended when the tokenizer does not do it itself and the model's processor does."""
    special_tokens: dict[str, str] = field(default_factory=dict)
    """bos_token, eos_token, ... as the chat template may use them."""


@dataclass(frozen=True, kw_only=True)
class DecoderSpec:
    """What the runtime must know of the language model."""

    n_embd: int
    n_vocab: int
    n_layer: int
    context_length: int
    positions: Positions = "sequential"
    mrope_sections: tuple[int, ...] = ()
    image_attention: ImageAttention = "causal"
    head_dim: int | None = None
    """Size of one key or value head; needed for ONNX graphs that leave that dimension of the cache symbolic."""
    embedding_scale: float = 1.0
    """Factor on token embeddings that the decoder graph leaves to the caller."""
    scales_pictures: bool = False
    """Whether that factor is on visual embeddings too."""


@dataclass(frozen=True, kw_only=True)
class PatchInput:
    """Input of a tower that takes a picture of any size as a list of patches; see :mod:`edge_mllm.patches`."""

    patch: int
    """Side of a patch in pixels."""
    merge: int
    """``merge`` x ``merge`` neighbouring patches become one visual token."""
    frames: int = 1
    """Moments in time that one patch covers; a picture repeats itself."""
    window: int | None = None
    """Side, in patches, of the squares within which some layers attend; the last ones of a row or column are cut off
    at the picture's edge. None where every layer sees the whole picture."""

    @property
    def values(self) -> int:
        """Numbers in one packed patch."""
        return 3 * self.frames * self.patch**2


@dataclass(frozen=True, kw_only=True)
class VisionSpec:
    """The tower's contract: pixels [tiles, 3, height, width] float32 in, embeddings [tiles, tokens, n_embd] out.

    With ``patches``: pixels [patches, values of a patch] float32 and positions [patches, 2] int64 in, embeddings
    [tokens, n_embd] out; the "tile" is then what one visual token stands for. With ``patches.window`` also, as
    :func:`edge_mllm.patches.patch_windows` gives them, windows [windows, window * window] and places [patches] int64.
    """

    tokens_per_tile: int
    tile_height: int
    tile_width: int
    patches: PatchInput | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of the bundle."""

    file: str
    sha256: str
    bytes: int
    precision: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the weights came from."""

    id: str
    revision: str | None
    sha256: str
    licence: str
    family: str
    """For people and for models.md; the runtime never branches on it."""
    random_weights: bool = False


@dataclass(frozen=True, kw_only=True)
class BundleSpec:
    """The whole of bundle.json."""

    schema_version: int
    name: str
    source: Source
    image: ImageSpec
    vision: VisionSpec
    prompt: PromptSpec
    decoder: DecoderSpec
    parts: dict[str, Part]
    """Keys: vision, newline, decoder_onnx, decoder_onnx_data, embeddings, prompt_onnx, prompt_onnx_data, decoder_gguf,
    mmproj, tokenizer, chat_template."""
    recipe: dict[str, Any]
    verification: dict[str, Any]
    created: str
    exporter: dict[str, str]
    """Versions of edge-mllm and of the libraries that wrote the files."""

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Decoders present, the preferred one first."""
        found: list[Engine] = []
        if "decoder_onnx" in self.parts:
            found.append("onnx")
        if "decoder_gguf" in self.parts:
            found.append("gguf")
        return tuple(found)
