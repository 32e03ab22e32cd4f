"""A request's body that comes piece by piece: each leaves as it comes, and no faster than the socket takes it.

Chunked where its length is not known. It ends with the answer: who has an answer needs no more of the question. One
that breaks off, or is longer or shorter than it was said to be, closes the connection: half a request must not look
whole.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from penstock.canon.errors import ConnectError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Upload:
    """`write` takes bytes now; `fail` is called, once, with what went wrong."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        length: int | None,
        write: Callable[[bytes], None],
        fail: Callable[[Exception], None],
        *,
        is_full: bool,
    ) -> None:
        self._pieces = pieces
        self._length = length
        self._write = write
        self._fail = fail
        self._may_write = asyncio.Event()
        if not is_full:
            self._may_write.set()
        self._task = asyncio.get_running_loop().create_task(self._send())

    @property
    def is_over(self) -> bool:
        return self._task.done()

    def pause(self) -> None:
        self._may_write.clear()

    def resume(self) -> None:
        self._may_write.set()

    def stop(self) -> None:
        if asyncio.current_task() is not self._task:
            self._task.cancel()

    async def _send(self) -> None:
        try:
            sent = 0
            async for data in self._pieces:
                sent += len(data)
                if self._length is not None and sent > self._length:
                    raise ConnectError("The request's body is longer than it was said to be.")
                if data:
                    await self._may_write.wait()
                    self._write(data if self._length is not None else b"%x\r\n%b\r\n" % (len(data), data))
            if self._length is None:
                self._write(b"0\r\n\r\n")
            elif sent < self._length:
                raise ConnectError("The request's body is shorter than it was said to be.")
        except Exception as error:
            self._fail(error)
