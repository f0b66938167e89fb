"""A bundle directory: opened, checked, nothing in it executed."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn

from edge_mllm.bundle import BundleSpec, Engine, Part
from edge_mllm.bundle_json import read_spec, spec_to_dict
from edge_mllm.errors import (
    BundleError,
    EdgeMLLMError,
    ModelNotFoundError,
    PartChangedError,
    PartMismatchError,
    PartMissingError,
)
from edge_mllm.tile_plan import MAX_TILES, TilePlan, plan_tiles
from edge_mllm.tilers import Tiler

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["OpenBundle", "check_numbers", "open_bundle", "read_spec", "spec_to_dict", "write_spec"]

SPEC_FILE = "bundle.json"
MAX_SPEC_BYTES = 8 << 20
_BLOCK = 1 << 20

_REQUIRED = ("vision", "tokenizer", "chat_template")
_DECODERS = {"decoder_onnx": ("embeddings",), "decoder_gguf": ()}
"""Each decoder with the parts it cannot do without."""

DECODER_PARTS: dict[Engine, tuple[str, ...]] = {
    "onnx": ("decoder_onnx", "decoder_onnx_data", "embeddings", "prompt_onnx", "prompt_onnx_data"),
    "gguf": ("decoder_gguf",),
}
"""What an engine needs for the language model."""

_MAX_DIMENSION = 1 << 24
_MAX_WINDOW = 256


@dataclass(frozen=True)
class OpenBundle:
    """A bundle whose files have been checked."""

    path: Path
    spec: BundleSpec

    def file(self, part: str) -> Path:
        """Path of a part, such as ``vision`` or ``decoder_gguf``.

        Raises:
            BundleError: The bundle has no such part.
        """
        if part not in self.spec.parts:
            raise BundleError(self.path, f"it has no part '{part}'; it has {', '.join(self.spec.parts)}")
        return _inside(self.path, part, self.spec.parts[part])

    def check_hashes(self, engine: Engine) -> None:
        """Compare the SHA-256 of the parts that an engine uses with bundle.json; other decoders are not read.

        Raises:
            PartChangedError: One is another.
            BundleError: A file cannot be read.
        """
        others = {name for other, names in DECODER_PARTS.items() if other != engine for name in names}
        for name, part in self.spec.parts.items():
            if name not in {*others, "mmproj"}:
                _check_file(self.path, _inside(self.path, name, part), part, True)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, with the truncation and padding its file may ask for switched off.

        Raises:
            BundleError: The file cannot be read.
            PartMismatchError: Its vocabulary is not the decoder's, or its image token is another one.
        """
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(self.file("tokenizer")))
        except BundleError:
            raise
        except Exception as error:  # tokenizers raises bare Exception
            raise BundleError(self.path, f"the tokenizer cannot be read ({_line(error)})") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        _check_tokenizer(self.path, self.spec, tokenizer)
        return tokenizer

    def chat_template(self) -> str:
        """Text of the chat template.

        Raises:
            BundleError: It is not UTF-8.
        """
        try:
            return self.file("chat_template").read_text("utf-8")
        except UnicodeDecodeError as error:
            raise BundleError(self.path, f"the chat template is not UTF-8 ({_line(error)})") from error


def open_bundle(path: str | Path, *, check_hashes: bool = True) -> OpenBundle:
    """Open a bundle directory and check it.

    Args:
        path: The directory that holds bundle.json.
        check_hashes: Read every file and compare its SHA-256; without it only sizes are compared.

    Raises:
        ModelNotFoundError: There is no directory with a bundle.json.
        BundleError: bundle.json is damaged, or a number in it is not sane.
        BundleVersionError: It has another schema version.
        PartMissingError: A file is missing.
        PartChangedError: A file's size or hash is another one.
    """
    root = Path(path)
    spec = _read_file(root)
    check_numbers(root, spec)
    _check_parts(root, spec)
    for name, part in spec.parts.items():
        _check_file(root, _inside(root, name, part), part, check_hashes)
    return OpenBundle(root, spec)


def write_spec(spec: BundleSpec, path: Path) -> None:
    """Write bundle.json at ``path``."""
    text = json.dumps(spec_to_dict(spec), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", "utf-8")


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _read_file(root: Path) -> BundleSpec:
    file = root / SPEC_FILE
    if not root.exists():
        raise ModelNotFoundError(root)
    if not file.is_file():
        raise ModelNotFoundError(root, f"there is no {SPEC_FILE} in it")
    if file.stat().st_size > MAX_SPEC_BYTES:
        raise BundleError(root, f"{SPEC_FILE} is larger than {MAX_SPEC_BYTES >> 20} MiB")
    try:
        data = json.loads(file.read_text("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(root, f"{SPEC_FILE} is not valid JSON ({_line(error)})") from error
    except OSError as error:
        raise BundleError(root, f"{SPEC_FILE} cannot be read ({error.strerror})") from error
    return read_spec(data, root)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _inside(root: Path, name: str, part: Part) -> Path:
    """The part's path, which must lie in the bundle after every symbolic link has been followed."""
    relative = PurePosixPath(part.file)
    if not part.file or relative.is_absolute() or ".." in relative.parts or "\\" in part.file or "\0" in part.file:
        raise BundleError(root, f"the path of part '{name}' leaves the bundle: {part.file!r}")
    file = root / relative
    try:
        inside = file.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:  # links that go round in a circle
        raise BundleError(root, f"the path of part '{name}' cannot be followed ({_line(error)})") from error
    if not inside:
        raise BundleError(root, f"the path of part '{name}' leaves the bundle: {part.file!r}")
    return file


def _check_file(root: Path, file: Path, part: Part, check_hash: bool) -> None:
    if not file.is_file():
        raise PartMissingError(root, part.file)
    try:
        size = file.stat().st_size
        if size != part.bytes:
            raise PartChangedError(root, part.file, f"{size} bytes instead of {part.bytes}")
        if check_hash and sha256_of(file) != part.sha256.lower():
            raise PartChangedError(root, part.file, "its SHA-256 is another one")
    except OSError as error:
        raise BundleError(root, f"the file '{part.file}' cannot be read ({error.strerror})") from error


def _check_parts(root: Path, spec: BundleSpec) -> None:
    decoders = [name for name in _DECODERS if name in spec.parts]
    if not decoders:
        raise BundleError(root, "it has no decoder; export the model again")
    needed = [*_REQUIRED, *(part for name in decoders for part in _DECODERS[name])]
    missing = [part for part in needed if part not in spec.parts]
    if missing:
        raise BundleError(root, f"bundle.json names no {' and no '.join(missing)}; export the model again")


def check_numbers(root: Path, spec: BundleSpec, *, where: str = "bundle.json") -> None:
    """Refuse numbers that would lead to huge allocations or to nonsense.

    Args:
        root: Of the model, for the message.
        spec: To check.
        where: What the numbers come from, for the message.

    Raises:
        BundleError: One is not sane.
    """
    decoder, vision, image = spec.decoder, spec.vision, spec.image
    dimensions = {f"decoder.{name}": getattr(decoder, name) for name in ("n_embd", "n_vocab", "n_layer")}
    dimensions["decoder.context_length"] = decoder.context_length
    for prefix, part in (("vision", vision), ("vision.patches", vision.patches), ("image.tiler", image.tiler)):
        dimensions |= _whole_numbers(prefix, part)
    for name, value in dimensions.items():
        if not 0 < value < _MAX_DIMENSION:
            raise BundleError(root, f"{where}, {name}: {value} is not a sane size")
    for name, values in {"image.std": image.std, "image.rescale": (image.rescale,)}.items():
        if min(values) <= 0:
            raise BundleError(root, f"{where}, {name}: {min(values)} is not above zero")
    for tiler in (image.tiler, image.several):
        if tiler is not None:
            _check_tiles(root, spec, tiler, where)
    ids = {"image_token_id": (spec.prompt.image_token_id,), "stop_token_ids": spec.prompt.stop_token_ids}
    for name, values in {**ids, "bos_token_id": (spec.prompt.bos_token_id or 0,)}.items():
        if any(not 0 <= value < decoder.n_vocab for value in values):
            raise BundleError(root, f"{where}, prompt.{name}: outside the vocabulary of {decoder.n_vocab}")


def _whole_numbers(prefix: str, part: Any) -> dict[str, int]:
    """The whole numbers among a dataclass's fields; none of None."""
    values = {field.name: getattr(part, field.name) for field in fields(part)} if part is not None else {}
    return {
        f"{prefix}.{name}": value
        for name, value in values.items()
        if isinstance(value, int) and not isinstance(value, bool)
    }


def _check_tiles(root: Path, spec: BundleSpec, tiler: Tiler, where: str) -> None:
    """Tiles must have the tower's size, and there must not be thousands of them."""
    grids = getattr(tiler, "grids", ())
    if any(not 0 < side <= MAX_TILES for grid in grids for side in grid):
        raise BundleError(root, f"{where}, image.tiler.grids: rows and columns must be from 1 to {MAX_TILES}")
    try:
        plan = plan_tiles(1024, 1024, tiler)
    except EdgeMLLMError as error:
        raise BundleError(root, f"{where}, image.tiler: {error}") from error
    _check_stitching(root, spec, plan, where)
    patches = spec.vision.patches
    if (plan.token_grid is None) != (patches is None):
        raise BundleError(root, f"{where}, vision.patches does not go with the tiler '{tiler.kind}'")
    width, height = plan.tile_size
    if plan.token_grid is not None and patches is not None:
        width, height = width // plan.token_grid[1], height // plan.token_grid[0]
        if patches.patch * patches.merge != width:
            reason = f"{patches.merge} patches of {patches.patch} pixels, image.tiler has units of {width}"
            raise BundleError(root, f"{where}, vision.patches makes a token of {reason}")
        if patches.window is not None and (patches.window % patches.merge or patches.window > _MAX_WINDOW):
            reason = f"a multiple of {patches.merge} up to {_MAX_WINDOW} is expected"
            raise BundleError(root, f"{where}, vision.patches.window: {patches.window}, {reason}")
    if (width, height) != (spec.vision.tile_width, spec.vision.tile_height):
        tower = f"{spec.vision.tile_width}x{spec.vision.tile_height}"
        raise BundleError(root, f"{where}, image.tiler cuts {width}x{height} tiles but vision takes {tower}")


def _check_stitching(root: Path, spec: BundleSpec, plan: TilePlan, where: str) -> None:
    """A map needs square tiles of tokens, and the newline embedding behind its rows unless it is plain."""
    if plan.stitch is None:
        return
    if math.isqrt(spec.vision.tokens_per_tile) ** 2 != spec.vision.tokens_per_tile:
        reason = f"{spec.vision.tokens_per_tile} is no square number, which image.tiler.stitch needs"
        raise BundleError(root, f"{where}, vision.tokens_per_tile: {reason}")
    if plan.stitch.max_tiles is not None and not 0 < plan.stitch.max_tiles <= MAX_TILES:
        reason = f"{plan.stitch.max_tiles} is not from 1 to {MAX_TILES}"
        raise BundleError(root, f"{where}, image.tiler.stitch.max_tiles: {reason}")
    if not plan.stitch.plain and "newline" not in spec.parts:
        raise BundleError(root, f"{where} names no newline, which image.tiler.stitch needs; export the model again")


def _check_tokenizer(root: Path, spec: BundleSpec, tokenizer: Tokenizer) -> None:
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    if size > spec.decoder.n_vocab:
        reason = f"the tokenizer has {size} tokens, the decoder {spec.decoder.n_vocab}; they do not belong together"
        raise PartMismatchError(root, reason)
    found = tokenizer.token_to_id(spec.prompt.image_token)
    if found != spec.prompt.image_token_id:
        token, expected = spec.prompt.image_token, spec.prompt.image_token_id
        raise PartMismatchError(root, f"'{token}' is token {found} in the tokenizer but {expected} in bundle.json")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
