"""From a picture's URL to its bytes, checked before anything is decoded."""

from __future__ import annotations

import base64
import binascii
import os
import stat
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from edge_mllm.errors import ImageError
from edge_mllm.picture.image import read_header
from edge_mllm.serve.errors import RequestError
from edge_mllm.serve.pictures.fetch import fetch
from edge_mllm.serve.settings import Bounds, Sources


class PictureSources:
    """Reads pictures for requests.

    Args:
        sources: Where they may come from.
        bounds: How many, and how large.
    """

    def __init__(self, sources: Sources, bounds: Bounds) -> None:
        self._folders = [folder.resolve() for folder in sources.folders]
        self._hosts, self._bounds = frozenset(sources.hosts), bounds

    def read(self, urls: Sequence[tuple[str, str]]) -> list[bytes]:
        """The pictures of a request; takes time where they are fetched.

        Args:
            urls: Field of the request and URL of each.

        Raises:
            RequestError: There are too many, or one may not or cannot be read; the error names its field.
        """
        self._check_count(len(urls))
        return [self._read_one(param, url) for param, url in urls]

    def read_base64(self, param: str, texts: Sequence[str]) -> list[bytes]:
        """Pictures that stand in a request as base64 alone.

        Raises:
            RequestError: As :meth:`read`.
        """
        self._check_count(len(texts))
        return [self.check(param, from_base64(param, text.partition(";base64,")[2] or text)) for text in texts]

    def check(self, param: str, data: bytes) -> bytes:
        """A picture, looked at by its header alone.

        Raises:
            RequestError: It is none, or larger than what is decoded here.
        """
        try:
            header = read_header(data)
        except ImageError as error:
            raise RequestError(400, str(error), param=param, code="invalid_image") from error
        if header.width * header.height > self._bounds.pixels:
            allowed = f"at most {self._bounds.pixels / 1e6:g} megapixels are taken"
            reason = f"the picture has {header.width}x{header.height} pixels; {allowed}"
            raise RequestError(400, reason, param=param, code="image_too_large")
        return data

    def _check_count(self, count: int) -> None:
        if count > self._bounds.pictures:
            reason = f"{count} pictures are too many; at most {self._bounds.pictures} are taken"
            raise RequestError(400, reason, param="messages", code="too_many_images")

    def _read_one(self, param: str, url: str) -> bytes:
        scheme = url.partition(":")[0].lower() if ":" in url[:16] else ""
        if scheme == "data":
            return self.check(param, _from_data(param, url))
        if scheme == "file":
            return self.check(param, self._from_file(param, url))
        if scheme in ("http", "https"):
            return self.check(param, self._fetched(param, url))
        reason = "a picture is a data: URL, or a file: or http(s): one where the server allows it"
        raise RequestError(400, f"cannot use '{url[:40]}': {reason}", param=param, code="invalid_image_url")

    def _fetched(self, param: str, url: str) -> bytes:
        if not self._hosts:
            reason = "addresses are not fetched by this server; send the picture as a data: URL"
            raise RequestError(400, reason, param=param, code="urls_not_allowed")
        try:
            return fetch(url, self._hosts, self._bounds.body_bytes, self._bounds.read_s)
        except ImageError as error:
            raise RequestError(400, str(error), param=param, code="cannot_fetch") from error

    def _from_file(self, param: str, url: str) -> bytes:
        """The bytes of a file in an allowed directory. What lies elsewhere is told like what is not there."""
        if not self._folders:
            reason = "files are not read by this server; send the picture as a data: URL"
            raise RequestError(400, reason, param=param, code="files_not_allowed")
        parts = urllib.parse.urlsplit(url)
        path = urllib.parse.unquote(parts.path)
        data = self._read_inside(path) if parts.netloc in ("", "localhost") and "\0" not in path else None
        if data is None:
            reason = "there is no such picture in a directory that the server allows"
            raise RequestError(400, reason, param=param, code="file_not_found")
        return data

    def _read_inside(self, path: str) -> bytes | None:
        try:
            real = Path(path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            return None
        if not Path(path).is_absolute() or not self._holds(real):
            return None
        try:  # a pipe must not block, and what was put in the place of a checked name must not be followed
            descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return self._read_checked(descriptor)
        finally:
            os.close(descriptor)

    def _read_checked(self, descriptor: int) -> bytes | None:
        """All of what was opened, if it is a file that lies where it should."""
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > self._bounds.body_bytes:
            return None
        opened = f"/proc/self/fd/{descriptor}"
        if os.path.lexists(opened) and not self._holds(Path(os.readlink(opened))):  # noqa: PTH115  (it may be gone)
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(self._bounds.body_bytes)

    def _holds(self, path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in self._folders)


def _from_data(param: str, url: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise RequestError(400, "a data: URL must be in base64", param=param, code="invalid_image_url")
    return from_base64(param, body)


def from_base64(param: str, text: str) -> bytes:
    """The bytes of a picture.

    Raises:
        RequestError: It is no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        reason = f"its base64 is damaged ({error})"
        raise RequestError(400, f"the picture cannot be read: {reason}", param=param, code="invalid_base64") from error
