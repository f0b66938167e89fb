"""A bundle directory: opened, checked, nothing in it executed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NoReturn

from edge_mllm.bundle.checked import remembered_sha256, sha256_of
from edge_mllm.bundle.numbers import check_numbers
from edge_mllm.bundle.pointers import is_pointer
from edge_mllm.bundle.spec import BundleSpec, Engine, Part
from edge_mllm.bundle.spec_json import read_spec, spec_to_dict
from edge_mllm.errors import (
    BundleError,
    ModelNotFoundError,
    PartChangedError,
    PartMismatchError,
    PartMissingError,
    PartPointerError,
)
from edge_mllm.typed_json import parse_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["OpenBundle", "read_bundle", "read_spec", "spec_to_dict", "write_spec"]

SPEC_FILE = "bundle.json"
MAX_SPEC_BYTES = 8 << 20

_REQUIRED = ("vision", "tokenizer", "chat_template")
_DECODERS = {"decoder_onnx": ("embeddings",), "decoder_gguf": ()}
"""Each decoder with the parts it cannot do without."""

DECODER_PARTS: dict[Engine, tuple[str, ...]] = {
    "onnx": ("decoder_onnx", "decoder_onnx_data", "embeddings", "prompt_onnx", "prompt_onnx_data"),
    "gguf": ("decoder_gguf",),
}
"""What an engine needs for the language model."""
OPENVINO_TOWER = "vision_openvino"
"""The part, in bundles that have it, that is the tower in a form for OpenVINO (beside ``vision``, ONNX Runtime's)."""
_CHECKED_ALONE = ("mmproj", OPENVINO_TOWER, f"{OPENVINO_TOWER}_data")
"""Parts that most answers do without."""


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

    def checked(self, part: Part) -> Path:
        """Path of a file that is not among the parts, such as a tower for an NPU, its SHA-256 compared.

        Raises:
            PartMissingError: It is not there.
            PartChangedError: It is another.
            BundleError: Its path leaves the bundle, or it cannot be read.
        """
        file = _inside(self.path, part.file, part)
        _check_file(self.path, file, part, sha256_of)
        return file

    def check_hashes(self, engine: Engine) -> None:
        """Compare the SHA-256 of the parts that an engine uses with bundle.json; what it does without is not read.

        Large files are read once and then again only when they changed (:mod:`edge_mllm.bundle.checked`).

        Raises:
            PartChangedError: One is another.
            BundleError: A file cannot be read.
        """
        others = {name for other, names in DECODER_PARTS.items() if other != engine for name in names}
        for name, part in self.spec.parts.items():
            if name not in {*others, *_CHECKED_ALONE}:
                _check_file(self.path, _inside(self.path, name, part), part, remembered_sha256)

    def check_part(self, name: str) -> None:
        """Compare the SHA-256 of a part, and of the weights in a file beside it, with bundle.json.

        Raises:
            PartChangedError: One is another.
            BundleError: A file cannot be read.
        """
        for each in (name, f"{name}_data"):
            if each in self.spec.parts:
                _check_file(self.path, self.file(each), self.spec.parts[each], remembered_sha256)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, with the truncation and padding its file may ask for switched off.

        Raises:
            BundleError: The file cannot be read.
            PartMismatchError: Its vocabulary is not the decoder's, or its image token is another one.
        """
        tokenizer = self.read_tokenizer()
        tokenizer.no_padding()
        tokenizer.no_truncation()
        _check_tokenizer(self.path, self.spec, tokenizer)
        return tokenizer

    def read_tokenizer(self) -> Tokenizer:
        """The tokenizer as its files have it; :meth:`tokenizer` is the one to use.

        Raises:
            BundleError: The file cannot be read.
        """
        from tokenizers import Tokenizer

        try:
            return Tokenizer.from_file(str(self.file("tokenizer")))
        except BundleError:
            raise
        except Exception as error:  # tokenizers raises bare Exception
            raise BundleError(self.path, f"the tokenizer cannot be read ({_line(error)})") from error

    def chat_template(self) -> str:
        """Text of the chat template.

        Raises:
            BundleError: It is not UTF-8.
        """
        try:
            return self.file("chat_template").read_text("utf-8")
        except UnicodeDecodeError as error:
            raise BundleError(self.path, f"the chat template is not UTF-8 ({_line(error)})") from error


def read_bundle(path: str | Path, *, check_hashes: bool = True) -> OpenBundle:
    """Read a bundle directory and check it, all but its tiling (:func:`edge_mllm.picture.tile_checks.check_tiles`).

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
        _check_file(root, _inside(root, name, part), part, sha256_of if check_hashes else None)
    return OpenBundle(root, spec)


def write_spec(spec: BundleSpec, path: Path) -> None:
    """Write bundle.json at ``path``."""
    text = json.dumps(spec_to_dict(spec), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", "utf-8")


def _read_file(root: Path) -> BundleSpec:
    file = root / SPEC_FILE
    if not root.exists():
        raise ModelNotFoundError(root)
    if not file.is_file():
        raise ModelNotFoundError(root, f"there is no {SPEC_FILE} in it")
    if file.stat().st_size > MAX_SPEC_BYTES:
        raise BundleError(root, f"{SPEC_FILE} is larger than {MAX_SPEC_BYTES >> 20} MiB")
    try:
        data = parse_json(file.read_text("utf-8"), parse_constant=_no_constant)
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
        inside = any(file.resolve().is_relative_to(place) for place in _places(root.resolve()))
    except (OSError, RuntimeError) as error:  # links that go round in a circle
        raise BundleError(root, f"the path of part '{name}' cannot be followed ({_line(error)})") from error
    if not inside:
        raise BundleError(root, f"the path of part '{name}' leaves the bundle: {part.file!r}")
    return file


def _places(root: Path) -> list[Path]:
    """Folders that links of a bundle may lead into: itself, and the blobs of its own copy in the hub's cache."""
    snapshots = [each for each in (root, *root.parents) if each.parent.name == "snapshots"]
    copies = [each.parents[1] for each in snapshots if each.parents[1].name.startswith("models--")]
    return [root, *(copy / "blobs" for copy in copies[:1])]


def _check_file(root: Path, file: Path, part: Part, hashed: Callable[[Path], str] | None) -> None:
    """Compare size and, by the function given, SHA-256."""
    if not file.is_file():
        raise PartMissingError(root, part.file)
    try:
        size = file.stat().st_size
        if size != part.bytes and is_pointer(file):
            raise PartPointerError(root, part.file)
        if size != part.bytes:
            raise PartChangedError(root, part.file, f"{size} bytes instead of {part.bytes}")
        if hashed is not None and hashed(file) != part.sha256.lower():
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
