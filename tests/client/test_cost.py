"""What the library costs, as `benchmarks/client.py` measures it: orders of magnitude, and what must not be there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.client.test_replay import python

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

BENCHMARK = str(Path(__file__).resolve().parents[2] / "benchmarks" / "client.py")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with subprocess.Popen([sys.executable, BENCHMARK, "--serve"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        server.terminate()


def measured(client: str, mode: str, url: str) -> dict[str, float]:
    asked = [sys.executable, BENCHMARK, "--measure", client, mode, url]
    done = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("view", ["async for", ".text"])
def test_an_event_costs_a_fraction_of_what_it_costs_in_the_openai_sdk(view: str, url: str) -> None:
    ours = measured(f"penstock, `{view}`", "burst", url)["us"]
    assert ours * 5 < measured("openai, `async for`", "burst", url)["us"]


def test_c11_a_thousand_open_streams_fit_into_150_mib(url: str) -> None:
    assert measured("penstock, `async for`", "open", url)["mib"] < 150


def test_no_thread_until_the_sync_api_is_used_and_none_at_exit() -> None:
    data = 'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\\n\\n'
    code = (
        "import asyncio, atexit, threading\n"
        "names = lambda: [t.name for t in threading.enumerate() if t is not threading.main_thread()]\n"
        "atexit.register(lambda: print(names()))\n"  # registered first, so it is called last
        "import penstock\n"
        "async def chunks():\n"
        "    yield {'content': 'Hi', 'finish_reason': 'stop'}\n"
        "async def read():\n"
        "    async with penstock.adapt(chunks()) as stream:\n"
        "        return ''.join([piece async for piece in stream.text])\n"
        "print(asyncio.run(read()), names())\n"
        f"print(penstock.replay(b'{data}', dialect='openai-chat').response.text, names())\n"
        "print(penstock.adapt([{'content': 'Hi', 'finish_reason': 'stop'}]).response.text)\n"
    )
    assert python(code).splitlines() == ["Hi []", "Hi ['penstock']", "Hi", "[]"]
