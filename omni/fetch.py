"""Fetch a file from the web, within a size and a time, from public addresses only.

For callers that allow URLs in messages: what a stranger writes must not reach the machine's own network.
"""

import http.client
import ipaddress
import socket
import time
import urllib.error
import urllib.request
from functools import partial
from typing import Any

from omni.errors import InputError

__all__ = ["fetch"]

_CHUNK_BYTES = 64 * 1024


def _connect(host: str, port: int, *, timeout_s: float, allow_private: bool) -> socket.socket:
    """Connect to an address that was itself checked, so that a second look-up cannot answer differently."""
    *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    ip = ipaddress.ip_address(str(address[0]).split("%")[0])
    inner = getattr(ip, "ipv4_mapped", None) or ip
    if not allow_private and (not inner.is_global or inner.is_multicast):
        raise InputError(f"{host} is not a public address; send the file itself.")
    return socket.create_connection((str(ip), port), timeout=timeout_s)


class _Connection(http.client.HTTPConnection):
    def __init__(self, host: str, *, allow_private: bool, **settings: Any) -> None:
        super().__init__(host, **settings)
        self._allow_private = allow_private

    def connect(self) -> None:
        self.sock = _connect(
            self.host, self.port, timeout_s=float(self.timeout or 0), allow_private=self._allow_private
        )


class _SecureConnection(http.client.HTTPSConnection):
    def __init__(self, host: str, *, allow_private: bool, **settings: Any) -> None:
        super().__init__(host, **settings)
        self._allow_private = allow_private

    def connect(self) -> None:
        import ssl

        plain = _connect(self.host, self.port, timeout_s=float(self.timeout or 0), allow_private=self._allow_private)
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


class _Handler(urllib.request.AbstractHTTPHandler):
    """Open http and https through the checked connections."""

    def __init__(self, *, allow_private: bool) -> None:
        super().__init__()
        self._allow_private = allow_private

    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(partial(_Connection, allow_private=self._allow_private), request)

    def https_open(self, request: urllib.request.Request) -> Any:
        connection = partial(_SecureConnection, allow_private=self._allow_private)
        return self.do_open(connection, request)

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_


def _opener(*, allow_private: bool) -> urllib.request.OpenerDirector:
    """Build an opener by hand: without file: and ftp:, and without proxies, which would bypass the check."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        _Handler(allow_private=allow_private),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def fetch(url: str, *, max_bytes: int, timeout_s: float, allow_private: bool = False) -> bytes:
    """Download what an http or https URL names.

    Args:
        url: the address.
        max_bytes: larger answers are refused, unread.
        timeout_s: seconds for the whole download.
        allow_private: also reach addresses of the machine and its own network.

    Raises:
        InputError: another scheme, a private address, too large, too slow, or no answer.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise InputError(f"{url[:80]!r} is not an http or https address; send the file itself.")
    deadline = time.monotonic() + timeout_s
    data = bytearray()
    try:
        with _opener(allow_private=allow_private).open(url, timeout=timeout_s) as answer:
            while chunk := answer.read1(_CHUNK_BYTES):
                data += chunk
                if len(data) > max_bytes:
                    raise InputError(f"{url[:80]} holds more than {max_bytes} bytes; send a smaller file.")
                if time.monotonic() > deadline:
                    raise InputError(f"{url[:80]} took longer than {timeout_s:g} s; send the file itself.")
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"Cannot fetch {url[:80]} ({error}); check it, or send the file itself.") from error
    return bytes(data)
