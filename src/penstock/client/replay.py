"""`replay`: recorded bytes → the same stream object, without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.canon.errors import PenstockError
from penstock.canon.target import Target
from penstock.client.loop import private_loop
from penstock.client.request import build_request
from penstock.client.stream import AsyncStream, Stream
from penstock.client.target import check_dialect
from penstock.policy.upstream import upstream
from penstock.streams.clocks import Timeouts
from penstock.streams.handler import Call
from penstock.transport.memory import MemoryTransport, Reply

if TYPE_CHECKING:
    from collections.abc import Sequence


def replay(
    data: bytes,
    *,
    dialect: str,
    content_type: str | None = None,
    sizes: int | Sequence[int] | None = None,
) -> Stream:
    """Recorded bytes → the same stream object, without a network.

    `sizes` cuts the bytes as a network would: into pieces of that many bytes, or at these read ends. `content_type` is
    what the upstream said it was; without one the first bytes say it.
    """
    check_dialect(dialect)
    headers = {"content-type": content_type} if content_type else {}
    transport = MemoryTransport(Reply(headers=headers, chunks=_cut(data, sizes)))
    target = Target("replay", "memory://replay", dialect, "recorded")

    def made() -> AsyncStream:
        request = build_request("recorded", "replay", {})
        call = Call(request_id="replay", model="recorded", stream=True, request=request, target=target)
        return AsyncStream(upstream(transport, Timeouts(None, None, None, None, None)), call)

    return Stream(made, private_loop, begin=False)


def _cut(data: bytes, sizes: int | Sequence[int] | None) -> list[bytes]:
    if sizes is None:
        return [data]
    if isinstance(sizes, int):
        if sizes < 1:
            raise PenstockError(f"Pieces of {sizes} bytes cannot be cut.", fix="Use a size of at least 1.")
        return [data[at : at + sizes] for at in range(0, len(data), sizes)]
    ends = [end for end in sizes if 0 < end < len(data)]
    return [data[begin:end] for begin, end in zip([0, *ends], [*ends, len(data)], strict=True)]
