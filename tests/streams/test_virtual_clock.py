"""The clock that other tests rely on."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.virtual_clock import START, Stuck, VirtualClockLoop, now, on_virtual_time


@on_virtual_time
async def test_an_hour_takes_no_time():
    began = time.monotonic()
    await asyncio.sleep(3600)
    assert now() == START + 3600
    assert time.monotonic() - began < 1


@on_virtual_time
async def test_timers_fire_in_their_order():
    fired: list[str] = []
    loop = asyncio.get_running_loop()
    loop.call_later(2, fired.append, "late")
    loop.call_later(1.999, fired.append, "early")
    await asyncio.sleep(3)
    assert fired == ["early", "late"]


@on_virtual_time
async def test_timeouts_are_exact():
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await asyncio.sleep(61)
    assert now() == START + 60


def test_waiting_for_nothing_fails():
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner, pytest.raises(Stuck):
        runner.run(_wait_for_nothing())


async def _wait_for_nothing() -> None:
    await asyncio.Event().wait()
