"""Recording and playing back: the same bytes in the same reads, no secret kept, and nothing asked in silence."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

import penstock
from penstock.canon.errors import ConfigError, PenstockError
from penstock.testing import Pace, Recorder, Replayer, Reply, Upstream
from penstock.testing.recording import Cassette, masked_path, request_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "sk-very-secret-0123456789"
ASKED = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
REPLY = Reply(text="One two three four.", pace=Pace(fixed=0.01))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(REPLY) as upstream:
        yield upstream


def post(url: str, path: str, body: Any, **headers: str) -> tuple[int, bytes, Any]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body), given)
        with connection.getresponse() as answer:
            return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def recorded(upstream: Upstream, folder: Path, *bodies: Any, **headers: str) -> list[bytes]:
    with Recorder(upstream.url, folder) as recorder:
        said = [post(recorder.url, "/v1/chat/completions", body, **headers)[1] for body in bodies]
        for seen in recorder.seen:
            seen.wait_over()
    return said


def test_every_byte_passes_as_it_comes_and_is_kept(upstream: Upstream, tmp_path: Path):
    (said,) = recorded(upstream, tmp_path, ASKED, x_own="1", accept_encoding="gzip")
    direct = post(upstream.url, "/v1/chat/completions", ASKED)[1]
    assert said == direct.replace(b"sim_2", b"sim_1")
    assert upstream.seen[0].headers["x-own"] == "1"
    assert upstream.seen[0].headers["accept-encoding"] == "identity"
    (exchange,) = Cassette(tmp_path).load()
    assert (exchange.asked.method, exchange.asked.path) == ("POST", "/v1/chat/completions")
    assert (json.loads(exchange.request_body), exchange.response_body) == (ASKED, said)
    assert exchange.answered.end == "clean"
    assert len(exchange.answered.reads) >= 4, "each read is one, as the network brought it"
    assert exchange.answered.reads[-1][1] == len(said)


@pytest.mark.parametrize("speed", [100.0, "max"])
def test_it_is_played_back_byte_for_byte(speed: Any, upstream: Upstream, tmp_path: Path):
    (said,) = recorded(upstream, tmp_path, ASKED)
    with Replayer(tmp_path, speed=speed) as replayer:
        assert replayer.url.endswith("/v1")
        status, body, headers = post(replayer.url, "/v1/chat/completions", ASKED)
        assert (status, body, headers["content-type"]) == (200, said, "text/event-stream")


def test_the_same_question_in_other_words_is_the_same(upstream: Upstream, tmp_path: Path):
    (said,) = recorded(upstream, tmp_path, ASKED)
    other = json.dumps(dict(reversed(ASKED.items())), indent=2).encode()
    with Replayer(tmp_path, speed="max") as replayer:
        assert post(replayer.url, "/v1/chat/completions", other)[1] == said
        assert replayer.misses == []


def test_asked_again_it_says_the_next_and_then_the_last(upstream: Upstream, tmp_path: Path):
    said = recorded(upstream, tmp_path, ASKED, ASKED)
    with Replayer(tmp_path, speed="max") as replayer:
        again = [post(replayer.url, "/v1/chat/completions", ASKED)[1] for _ in range(3)]
    assert again == [said[0], said[1], said[1]]


def test_what_was_not_recorded_is_a_404_and_counted(upstream: Upstream, tmp_path: Path):
    recorded(upstream, tmp_path, ASKED)
    with Replayer(tmp_path, speed="max") as replayer:
        status, body, _ = post(replayer.url, "/v1/chat/completions", {**ASKED, "model": "other"})
    assert status == 404
    assert b"Recorded: POST /v1/chat/completions" in body
    assert [seen.path for seen in replayer.misses] == ["/v1/chat/completions"]


def test_c4_a_cut_stays_a_cut(upstream: Upstream, tmp_path: Path):
    upstream.says(Reply(faults=("cut-after-2",)))
    with Recorder(upstream.url, tmp_path) as recorder, penstock.Client() as client:
        with pytest.raises(PenstockError) as caught:
            client.generate("sim:m", "Hi", base_url=recorder.url, key="sk-1")
        asked = recorder.wait_for().wait_over().body
    assert caught.value.kind == "truncated"
    assert Cassette(tmp_path).load()[0].answered.end == "cut"
    with Replayer(tmp_path, speed="max") as replayer, pytest.raises(http.client.IncompleteRead):
        post(replayer.url, "/v1/chat/completions", asked)


def test_c7_who_leaves_the_recorder_leaves_the_upstream(upstream: Upstream, tmp_path: Path):
    upstream.says(Reply(faults=("endless",), pace=Pace(fixed=0.005)))
    with Recorder(upstream.url, tmp_path) as recorder:
        connection = http.client.HTTPConnection(urlsplit(recorder.url).netloc, timeout=10)
        connection.request("POST", "/v1/chat/completions", json.dumps(ASKED))
        connection.getresponse().read(10)
        connection.close()
        seen = upstream.wait_for().wait_over()
        recorder.wait_for().wait_over()
    assert seen.closed_at is not None
    assert Cassette(tmp_path).load()[0].answered.end == "cancelled"


def test_c13_no_secret_is_kept(upstream: Upstream, tmp_path: Path):
    upstream.says(Reply(text=f"Your key is {KEY}."))
    with Recorder(upstream.url, tmp_path) as recorder:
        path = f"/v1/chat/completions?key={KEY}&alt=sse"
        post(
            recorder.url, path, {**ASKED, "user": KEY}, authorization=f"Bearer {KEY}", x_api_key=KEY, cookie=f"a={KEY}"
        )
        recorder.wait_for().wait_over()
    assert KEY.encode() in upstream.seen[0].body, "the upstream gets it all"
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert KEY.encode() not in kept
    (exchange,) = Cassette(tmp_path).load()
    assert exchange.asked.headers["authorization"] == "***"
    assert exchange.answered.reads[-1][1] == len(exchange.response_body)


def test_an_upstream_that_is_not_there_is_said(tmp_path: Path):
    with Recorder("http://127.0.0.1:9/v1", tmp_path) as recorder:
        status, body, _ = post(recorder.url, "/v1/chat/completions", ASKED)
    assert (status, b"Nothing listens on 127.0.0.1:9." in body) == (502, True)


def test_a_read_a_step(upstream: Upstream, tmp_path: Path):
    recorded(upstream, tmp_path, ASKED)
    reads = Cassette(tmp_path).load()[0].answered.reads
    step = threading.Semaphore(0)
    with Replayer(tmp_path, speed="step", step=step) as replayer:
        connection = http.client.HTTPConnection(urlsplit(replayer.url).netloc, timeout=10)
        connection.request("POST", "/v1/chat/completions", json.dumps(ASKED))
        answer = connection.getresponse()
        for end in [after for _, after in reads][:2]:
            step.release()
            time.sleep(0.05)
            assert replayer.seen[0].written_bytes < end + 600
        step.release(len(reads))
        assert answer.read().endswith(b"data: [DONE]\n\n")
        connection.close()


@pytest.mark.parametrize("damage", ["empty", "json", "missing"])
def test_a_folder_that_is_no_cassette(damage: str, upstream: Upstream, tmp_path: Path):
    if damage != "empty":
        recorded(upstream, tmp_path, ASKED)
        if damage == "json":
            (tmp_path / "0001.json").write_text("{")
        else:
            (tmp_path / "0001.response").unlink()
    with pytest.raises(ConfigError):
        Replayer(tmp_path)


def test_keys():
    assert request_key("POST", "/a?key=x&b=1", b'{"b": 1, "a": 2}') == request_key(
        "POST", "/a?key=y&b=1", b'{"a":2,"b":1}'
    )
    assert request_key("POST", "/a", b"not json") != request_key("POST", "/a", b"not JSON")
    assert masked_path("/v1?key=abc&api_key=d&x=1") == "/v1?key=***&api_key=***&x=1"


CONFTEST = "from penstock.testing.cassette import cassette\n"
TEST = """
import json, urllib.request

def test_it(cassette):
    url = cassette("{upstream}")
    body = json.dumps({{"model": "{model}", "messages": [{{"role": "user", "content": "Hi"}}]}}).encode()
    with urllib.request.urlopen(url + "/chat/completions", body) as answer:
        assert b"One two" in answer.read()
"""


@pytest.mark.process
def test_the_fixture_records_once_replays_and_fails_on_a_miss(upstream: Upstream, tmp_path: Path):
    import subprocess
    import sys

    def tested(model: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "conftest.py").write_text(CONFTEST)
        (tmp_path / "test_it.py").write_text(TEST.format(upstream=upstream.url, model=model))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert tested("m").returncode == 0
    assert len(upstream.seen) == 1
    assert tested("m").returncode == 0
    assert len(upstream.seen) == 1, "the second time nobody is asked"
    missed = tested("other")
    assert missed.returncode == 1
    assert "Not recorded: POST /v1/chat/completions. Record anew with PENSTOCK_RECORD=1." in missed.stdout
