"""A picture from an allowed host, over http(s): no other host is spoken to, whatever names and redirects say.

A name is resolved once, every address of it must be of the open internet, and the connection goes to the address that
was checked, so that a name which changes its mind between check and use gains nothing. Who allows an address itself
(``127.0.0.1``) means that one. Proxies of the environment are not used.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator, Set

from edge_mllm.errors import ImageError

_MOST_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE = 1 << 16
_PORTS = {"http": 80, "https": 443}


def fetch(url: str, hosts: Set[str], most_bytes: int, seconds: float) -> bytes:
    """The body of an address.

    Args:
        url: ``http://`` or ``https://``.
        hosts: Those that may be asked, in lower case.
        most_bytes: Largest body.
        seconds: For all of it, redirects included.

    Raises:
        ImageError: It may not or cannot be fetched; the message says why.
    """
    deadline = time.monotonic() + seconds
    for _ in range(_MOST_REDIRECTS + 1):
        found = _get(url, hosts, most_bytes, deadline)
        if isinstance(found, bytes):
            return found
        url = urllib.parse.urljoin(url, found)
    raise ImageError(_shown(url), f"it redirects more than {_MOST_REDIRECTS} times")


def _get(url: str, hosts: Set[str], most_bytes: int, deadline: float) -> bytes | str:
    """A body, or where it is said to be instead."""
    parts, port = _allowed(url, hosts)
    host = parts.hostname or ""
    target = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{parts.query}" if parts.query else "")
    try:
        connection = _Connection(host, port, _address(host, port, url), parts.scheme == "https", _left(deadline))
        with contextlib.closing(connection), _ended_at(deadline, connection):
            connection.request("GET", target, headers={"Accept": "image/*", "User-Agent": "edge-mllm"})
            answer = connection.getresponse()
            if answer.status in _REDIRECTS and answer.headers.get("Location"):
                return str(answer.headers["Location"])
            if answer.status != 200:
                raise ImageError(_shown(url), f"its host answered with status {answer.status}")
            return _body(answer, url, most_bytes)
    except TimeoutError as error:
        raise ImageError(_shown(url), "its host did not answer in time") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(_shown(url), f"it cannot be fetched ({type(error).__name__})") from error


def _body(answer: http.client.HTTPResponse, url: str, most_bytes: int) -> bytes:
    """All of it, in pieces, so that its size is not the host's to choose."""
    found = bytearray()
    while piece := answer.read1(_PIECE):
        found += piece
        if len(found) > most_bytes:
            raise ImageError(_shown(url), f"it has more than {most_bytes} bytes")
    return bytes(found)


@contextlib.contextmanager
def _ended_at(deadline: float, connection: _Connection) -> Iterator[None]:
    """End a connection at a time, however slowly its host sends a byte now and then.

    Raises:
        TimeoutError: It came.
    """
    over = threading.Event()

    def end() -> None:
        over.set()
        connection.shut()

    timer = threading.Timer(_left(deadline), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException):
        if over.is_set():
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()
    if over.is_set():
        raise TimeoutError


def _allowed(url: str, hosts: Set[str]) -> tuple[urllib.parse.SplitResult, int]:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ImageError(_shown(url), "it is no address") from error
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ImageError(_shown(url), "only http and https addresses are fetched")
    if parts.username is not None or parts.password is not None:
        raise ImageError(_shown(url), "an address with a name and password is not fetched")
    if parts.hostname.lower().rstrip(".") not in hosts:
        raise ImageError(_shown(url), "its host is not one that the server fetches from")
    return parts, port if port is not None else _PORTS[parts.scheme]


def _address(host: str, port: int, url: str) -> str:
    """The address to connect to: the first of the name's, all of which must be of the open internet."""
    try:
        return str(ipaddress.ip_address(host))  # allowed as it is
    except ValueError:
        pass
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        raise ImageError(_shown(url), "its host is not known") from error
    for address in found:
        if not _is_open(address):
            raise ImageError(_shown(url), "its host has an address of this machine or a private network")
    return min(found, key=lambda each: (":" in each, each))


def _is_open(address: str) -> bool:
    """Whether an address is of the open internet, also where it is one of the old internet within the new."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is not None:
            return _is_open(str(inner))
        if found in ipaddress.ip_network("64:ff9b::/96"):
            return _is_open(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
    return found.is_global and not found.is_multicast


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _shown(url: str) -> str:
    return f"'{url[:80]}'"


class _Connection(http.client.HTTPConnection):
    """A connection to an address that was checked, which is asked for a host by name."""

    def __init__(self, host: str, port: int, address: str, tls: bool, seconds: float) -> None:
        super().__init__(host, port, timeout=seconds)
        self._address, self._tls = address, tls
        self._socket: socket.socket | None = None  # the response has it where the host closes the connection
        self.default_port = _PORTS["https" if tls else "http"]  # so that the Host header has others only

    def connect(self) -> None:
        """To the address, and with TLS as the host whose name was asked for."""
        plain = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host) if self._tls else plain
        self._socket = self.sock

    def shut(self) -> None:
        """End it from another thread: who reads from it reads its end."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
