"""A reply that an upstream compressed although it was asked not to: its bytes as they were before, as they come.

gzip and deflate, which every HTTP library knows. What one read inflates to is bounded; the rest waits for the next
`take`. Anything else is refused, with its name.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from penstock.canon.errors import ProtocolError
from penstock.canon.wire import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from penstock.canon.wire import HttpResponse

#: what one `take` gives at most
MAX_TAKE_BYTES = 1024 * 1024

_KNOWN = frozenset({"gzip", "x-gzip", "deflate"})
_HEADER_BYTES = 2
_EITHER = zlib.MAX_WBITS | 32  # a gzip or a zlib header


def inflated(response: HttpResponse) -> HttpResponse:
    """The response itself where nothing is compressed."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return response
    if encoding not in _KNOWN:
        raise ProtocolError(
            f"The upstream compressed its reply as `{encoding}`, which was not asked for.",
            fix="Turn compression off for this upstream, or in the proxy before it.",
        )
    return Inflated(response)


class Inflated:
    """Implements `HttpResponse` round one whose body is compressed."""

    def __init__(self, response: HttpResponse) -> None:
        self._response = response
        self._inflate = zlib.decompressobj(_EITHER)
        self._is_first = True
        self._head = b""  # too little to tell what it is

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    def take(self) -> bytes | None:
        data: bytes | None = self._inflate.unconsumed_tail or self._response.take()
        while data:
            try:
                plain = self._decompressed(data)
            except zlib.error as error:
                raise ConnectionLost(f"The compressed body cannot be read: {error}.") from error
            if plain:
                return plain
            data = self._response.take()
        if data == b"" and not self._inflate.eof and not self._is_first:
            raise ConnectionLost("The compressed body is cut.")
        return data

    def _decompressed(self, data: bytes) -> bytes:
        if self._is_first:
            data = self._head = self._head + data
            if len(data) < _HEADER_BYTES:
                return b""
            self._is_first = False
            try:
                return self._inflate.decompress(data, MAX_TAKE_BYTES)
            except zlib.error:  # "deflate" without its header, as some servers send it
                self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        return self._inflate.decompress(data, MAX_TAKE_BYTES)

    def arrival(self) -> Awaitable[None]:
        return self._response.arrival()

    async def read(self) -> bytes:
        while (data := self.take()) is None:
            await self.arrival()
        return data

    def release(self) -> None:
        self._response.release()

    def abort(self) -> int:
        return self._response.abort()
