"""How a server behaves: who may ask, how much, and for how long."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from edge_mllm.errors import SettingError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where pictures may come from beside the request itself."""

    folders: tuple[Path, ...] = ()
    """Directories whose files may be named."""
    hosts: tuple[str, ...] = ()
    """Hosts whose http(s) addresses are fetched, in lower case."""

    def __post_init__(self) -> None:
        for folder in self.folders:
            if not folder.is_dir():
                raise SettingError(f"`allow_files` names '{folder}', which is no directory")
        for host in self.hosts:
            if not host or "/" in host or host != host.lower().strip():
                raise SettingError(f"`allow_urls` takes the name of a host, such as example.com; got '{host}'")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What one request, and all of them together, may take.

    Raises:
        SettingError: A value is not above zero.
    """

    queue: int = 32
    """Requests that wait for their turn, of all clients together."""
    timeout_s: float = 600.0
    """Seconds of one request, waiting included."""
    body_bytes: int = 32 << 20
    """Largest body of a request."""
    waiting_bytes: int = 256 << 20
    """Most bytes of all bodies that were read and are not answered yet."""
    pictures: int = 16
    """Most pictures of one request."""
    pixels: int = 50_000_000
    """Largest picture, in pixels; it is looked up in the header before anything is decoded."""
    answer_tokens: int = 4096
    """Most tokens that an answer may ask for."""
    read_s: float = 30.0
    """Seconds in which a request's head must be there, and its body after that."""
    connections: int = 256
    """Open connections; further ones are closed at once."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise SettingError(f"{name} is {value}; it must be above 0")


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may ask."""

    api_key: str | None = None
    """What requests must carry as ``Authorization: Bearer``; None asks for nothing."""
    hosts: tuple[str, ...] = ()
    """Names by which the server may be called, beside addresses and ``localhost``; in lower case."""
    origins: tuple[str, ...] = ()
    """Origins of other sites whose pages may ask, such as ``https://example.com``."""

    def __post_init__(self) -> None:
        if self.api_key is not None and not (self.api_key and self.api_key.isascii() and self.api_key.isprintable()):
            raise SettingError("`api_key` must be printable ASCII text, and not empty")
        for origin in self.origins:
            scheme, _, rest = origin.partition("://")
            if scheme not in ("http", "https") or not rest or "/" in rest or origin != origin.lower():
                raise SettingError(f"`allow_origin` takes an origin, such as https://example.com; got '{origin}'")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """All of it."""

    host: str = LOOPBACK
    port: int = 8080
    """0 lets the system choose."""
    names: tuple[str, ...] = ()
    """Further names of the model that requests may use."""
    access: Access = field(default_factory=Access)
    bounds: Bounds = field(default_factory=Bounds)
    sources: Sources = field(default_factory=Sources)
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise SettingError(f"port is {self.port}; it must be between 0 and 65535")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise SettingError("`tls_cert` and `tls_key` go together")
        for file in (self.tls_cert, self.tls_key):
            if file is not None and not file.is_file():
                raise SettingError(f"there is no file '{file}'")

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine can ask."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
