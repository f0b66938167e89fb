"""bundle.json as frozen dataclasses: the border between export and runtime.

The export side fills these from a checkpoint's own configuration; the runtime reads nothing else. Names here are
mechanisms (a tiler, a resize filter, a position scheme), never model families. Reading and checking a bundle
directory is in :mod:`edge_mllm.bundle.files`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from edge_mllm.bundle.tilers import Tiler
from edge_mllm.bundle.turns import Turns
from edge_mllm.typed_json import LATER

SCHEMA_VERSION = 1
DECIDED = "decided"

Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
Positions = Literal["sequential", "mrope", "canvas"]
"""Positions of pictures' tokens: they run on like text, count rows and columns of one grid, or those of a canvas on
which a picture's slices lie, see :mod:`edge_mllm.prompt.canvas`."""
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

    ``{row}``, ``{col}`` (1-based) and ``{index}`` (1-based, in tile order) are filled in ``before_tile``, ``{picture}``
    (its number in the conversation, from 0) in ``before_image``. A picture of several tiles reads: before_image, then
    per row its tiles (before_tile, visual tokens, after_tile) and after_row, with between_rows before all rows but the
    first and with the global tile (before_global, visual tokens, after_global) first or last, then after_image. A
    picture of a single tile, or whose tiles are stitched, reads: before_image, before_single, visual tokens,
    after_single, after_image.
    """

    before_image: str = ""
    before_tile: str = ""
    after_tile: str = ""
    after_row: str = ""
    between_rows: str = field(default="", metadata=LATER)
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
    turns: Turns | None = None
    """The chat template as pieces, for devices without a template language; None where it cannot be written so."""
    canvas_marks: tuple[int, ...] = field(default=(), metadata=LATER)
    """Ids of tokens that belong to a picture's canvas where they follow the picture; none but with canvas positions."""


@dataclass(frozen=True, kw_only=True)
class DecoderSpec:
    """What the runtime must know of the language model."""

    n_embd: int
    n_vocab: int
    n_layer: int
    context_length: int
    positions: Positions = "sequential"
    mrope_sections: tuple[int, ...] = ()
    """How rotary frequencies are shared among time, row and column. With sequential positions all three are the same
    number: pictures run on like text."""
    image_attention: ImageAttention = "causal"
    head_dim: int | None = None
    """Size of one key or value head; needed for ONNX graphs that leave that dimension of the cache symbolic."""
    embedding_scale: float = 1.0
    """Factor on token embeddings that the decoder graph leaves to the caller."""
    scales_pictures: bool = False
    """Whether that factor is on visual embeddings too."""
    deepstack_layers: int | None = None
    """So many of the first layers each take a further row of every visual token, which is added to what the layer gives
    (Meng et al., arXiv 2406.04334). They lie behind the token's embedding, in one row with it. None where there are
    none."""
    state_layers: int | None = field(default=None, metadata=LATER)
    """So many layers keep one state of fixed size instead of keys and values, which cannot be cut back to an earlier
    token. None where there are none."""

    @property
    def axes(self) -> int:
        """Numbers that the position of a token has."""
        return 3 if self.positions != "sequential" or self.mrope_sections else 1

    @property
    def row_width(self) -> int:
        """Width of a visual token's row, with what goes to further layers."""
        return self.n_embd * (1 + (self.deepstack_layers or 0))


@dataclass(frozen=True, kw_only=True)
class PatchInput:
    """Input of a tower that takes a picture of any size as a list of patches; see :mod:`edge_mllm.picture.patches`."""

    patch: int
    """Side of a patch in pixels."""
    merge: int
    """``merge`` x ``merge`` neighbouring patches become one visual token."""
    frames: int = 1
    """Moments in time that one patch covers; a picture repeats itself."""
    window: int | None = None
    """Side, in patches, of the squares within which some layers attend; the last ones of a row or column are cut off
    at the picture's edge. None where every layer sees the whole picture."""
    pooled: bool = field(default=False, metadata=LATER)
    """The tower gives every tile, whatever its size, the same number of rows: answers to learned queries, say."""

    @property
    def values(self) -> int:
        """Numbers in one packed patch."""
        return 3 * self.frames * self.patch**2


@dataclass(frozen=True, kw_only=True)
class VisionSpec:
    """The tower's contract: pixels [tiles, 3, height, width] float32 in, rows [tiles, tokens, row_width] out.

    With ``patches``: pixels [patches, values of a patch] float32 and positions [patches, 2] int64 in, rows
    [tokens, row_width] out; the "tile" is then what one visual token stands for. With ``patches.window`` also, as
    :func:`edge_mllm.picture.patches.patch_windows` gives them: windows [windows, window**2], places [patches], int64.
    With ``patches.pooled`` the same inputs hold one tile, of which about as many pixels as these sides have are seen,
    and out come rows [tokens_per_tile, row_width].
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


NpuTarget = Literal["qnn-htp", "rknn"]
NpuPrecision = Literal["a16w8", "a8w8", "fp16", "int8"]
"""Bits of activations and weights."""


@dataclass(frozen=True, kw_only=True)
class NpuContext:
    """A tower compiled for one architecture. Drivers take the wrong one: both facts are the runtime's to check."""

    architecture: str
    """As ``v75``, a generation of Hexagon processors, or ``rk3588``, a chip."""
    sdk: str
    """Version of the compiler, as ``2.51.0``."""
    binary: Part
    graph: Part | None = None
    """An ONNX graph of one node that names the binary; None where the vendor's library reads the binary itself."""


@dataclass(frozen=True, kw_only=True)
class NpuTower:
    """The tower once more, for NPUs of one kind; the bundle's own part ``vision`` stays for CPUs."""

    target: NpuTarget
    precision: NpuPrecision
    tiles: int
    """Tiles of one run: a shape of an NPU's graph is fixed."""
    graph: Part | None = None
    """The quantised graph, which any SDK can compile and a CPU can run; None where no device compiles."""
    contexts: tuple[NpuContext, ...] = ()
    report: dict[str, Any] = field(default_factory=dict)
    """How it was made."""

    @property
    def files(self) -> tuple[Part, ...]:
        """Everything it consists of."""
        parts = (self.graph, *(part for each in self.contexts for part in (each.graph, each.binary)))
        return tuple(part for part in parts if part is not None)


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
    recipe: dict[str, dict[str, Any]]
    """Part -> how it was made; under :data:`DECIDED`, as ``sentences``, what contradicted itself in the source."""
    verification: dict[str, Any]
    created: str
    exporter: dict[str, str]
    """Versions of edge-mllm and of the libraries that wrote the files."""
    npu: tuple[NpuTower, ...] = field(default=(), metadata=LATER)
    """Towers for NPUs, apart from ``parts``: a damaged one leaves the CPU's alone."""

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(part.bytes for part in (*self.parts.values(), *(part for each in self.npu for part in each.files)))

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Decoders present, the preferred one first."""
        found: list[Engine] = []
        if "decoder_onnx" in self.parts:
            found.append("onnx")
        if "decoder_gguf" in self.parts:
            found.append("gguf")
        return tuple(found)
