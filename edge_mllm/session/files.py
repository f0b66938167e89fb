"""Files of a model, opened and checked; nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edge_mllm.bundle.files import OpenBundle, read_bundle
from edge_mllm.bundle.gguf_pair import is_gguf
from edge_mllm.bundle.published.directory import PublishedDirectory, is_published, read_directory
from edge_mllm.errors import BundleError, ModelNotFoundError, PromptError, SettingError
from edge_mllm.hub.resolve import Wanted, resolve
from edge_mllm.picture.tile_checks import check_tiles
from edge_mllm.prompt.item_template import content_kind, with_items


def starter_bundle() -> Path:
    """The bundle that ships in the wheel, or lies in the checkout.

    Raises:
        ModelNotFoundError: This installation has none.
    """
    package = Path(__file__).parents[1]
    places = (package / "starter.edge", package.parent / "starter" / "starter.edge")
    for place in places:
        if place.is_dir():
            return place
    raise ModelNotFoundError(places[0], "this installation has no starter bundle; give a model")


@dataclass(frozen=True)
class Place:
    """Where a model lies."""

    path: Path
    mmproj: Path | None = None
    """The tower of a GGUF file, where it was fetched with it."""


def find_model(name: str | Path | None, wanted: Wanted | None = None) -> Place:
    """Where a model lies that is named by a path, by a hub id or by a short name; fetched where it is not here.

    Args:
        name: None is the starter bundle. What exists on disk is a path; see :func:`edge_mllm.hub.names.read_name`.
        wanted: What of a repository that holds several things.

    Raises:
        ModelNotFoundError: There is nothing, or a checkpoint that must be exported first.
        HubError: It cannot be had from the hub.
        SettingError: A layout or a quantisation is asked of a path.
    """
    if name is None:
        return Place(starter_bundle())
    found = resolve(name, wanted)
    if found is not None:
        return Place(found.path, found.mmproj_path)
    if wanted is not None and (wanted.layout or wanted.quant):
        given = "layout" if wanted.layout else "quant"
        raise SettingError(f"`{given}` chooses among the files of a repository, and '{name}' is a path")
    path = Path(name).expanduser()
    if not path.exists() and len(path.parts) == 1 and path.suffix == "":
        raise ModelNotFoundError(
            name, "no such file or directory, and no name of the catalogue (edge-mllm models --known)"
        )
    return Place(path)


def open_bundle(path: str | Path, *, check_hashes: bool = True) -> OpenBundle:
    """Open a bundle directory and check it; arguments and errors as :func:`edge_mllm.bundle.files.read_bundle`."""
    bundle = read_bundle(path, check_hashes=check_hashes)
    check_tiles(bundle.path, bundle.spec)
    return bundle


def open_directory(path: Path, *, precision: str | None = None) -> PublishedDirectory:
    """Open a published directory and check it; arguments and errors as :func:`read_directory`."""
    directory = read_directory(path, precision=precision)
    check_tiles(path, directory.spec, where="its configuration")
    return _taking_items(directory)


def _taking_items(directory: PublishedDirectory) -> PublishedDirectory:
    """The directory with a chat template that takes lists of texts and pictures, as an export makes it.

    Raises:
        BundleError: Its template has no way to show a question about a picture.
    """
    prompt, found = directory.spec.prompt, directory.template
    try:
        kind = content_kind(found.text, prompt.special_tokens, prompt.placeholder, directory.picture)
    except PromptError as error:
        raise BundleError(directory.path, f"{found.file}, chat_template: {error}") from error
    if kind == "items":
        return directory
    return replace(directory, template=replace(found, text=with_items(found.text, directory.picture)))


def open_files(path: Path, *, check_hashes: bool, precision: str | None = None) -> OpenBundle:
    """Open a bundle or a published directory; nothing is loaded.

    Raises:
        ModelNotFoundError: It is neither.
        BundleError: It is damaged.
        SettingError: ``precision`` is for a published directory, or it has no such files.
    """
    if is_published(path):
        return open_directory(path, precision=precision)
    if precision is not None:
        raise SettingError(f"'{path}' is no directory of published ONNX files, so there is no precision to choose")
    if (path / "config.json").is_file() and not (path / "bundle.json").is_file():
        raise ModelNotFoundError(path, f"it is a checkpoint; type: edge-mllm export {path} -o {path.name}.edge")
    return open_bundle(path, check_hashes=check_hashes)


def check_layout(path: Path, *, precision: str | None, mmproj: Path | None) -> None:
    """Refuse what belongs to models of another layout than this one.

    Raises:
        SettingError: ``precision`` was given for a GGUF file, or ``mmproj`` for anything else.
    """
    if is_gguf(path):
        if precision is not None:
            raise SettingError("a GGUF file has one precision; leave `precision` out")
    elif mmproj is not None:
        raise SettingError(f"`mmproj` goes with a GGUF file, and '{path}' is none")
