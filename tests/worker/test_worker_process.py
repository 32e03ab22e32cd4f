"""The worker as a process: its own events, its state, and models that are none."""

from __future__ import annotations

import http.client
import json
import re
import shutil
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import urlopen
from uuid import uuid4

import pytest

from penstock.framing.sse import SSEFraming
from penstock.worker.llamacpp import demo_model
from tests.gateways import until
from tests.processes import run, running
from tests.terminals import terminal
from tests.worker.gguf_files import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.processes import Running

pytestmark = pytest.mark.process


def post(at: Running, path: str, body: Any) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(at.url).netloc, timeout=30)
    connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data


def events_of(data: bytes) -> list[Any]:
    frames = SSEFraming().feed(data)
    return [frame.data if frame.data == b"[DONE]" else json.loads(frame.data) for frame in frames if frame.data]


def execute(at: Running, **body: Any) -> list[Any]:
    status, data = post(at, "/v1/execute", body)
    assert status == 200, data
    return events_of(data)


def test_execute_says_started_then_narration_then_tokens_then_one_end(worker: Running) -> None:
    # A prompt of several batches, which nobody asked before: the engine says how far it is between them.
    events = execute(worker, prompt=f"{uuid4().hex} " * 150, temperature=0, max_tokens=30)
    kinds = [event if event == b"[DONE]" else event["type"] for event in events]
    assert kinds[0] == "started"
    assert kinds[-2:] == ["end", b"[DONE]"]
    order = [kind for k, kind in enumerate(kinds) if k == 0 or kinds[k - 1] != kind]
    assert order == ["started", "narration", "token", "metrics", "end", b"[DONE]"]
    assert kinds.count("end") == 1
    assert "error" not in kinds


def test_execute_tokens_are_numbered_and_make_the_reply(worker: Running) -> None:
    events = execute(worker, prompt="Tell me a story", temperature=0, max_tokens=30)
    tokens = [event for event in events[:-1] if event["type"] == "token"]
    assert [token["i"] for token in tokens] == list(range(len(tokens)))
    text = "".join(token["t"] for token in tokens)
    status, data = post(
        worker,
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": "Tell me a story"}],
            "temperature": 0,
            "max_tokens": 30,
            "model": "tiny",
        },
    )
    assert status == 200
    assert text == json.loads(data)["choices"][0]["message"]["content"]


def test_execute_end_says_what_the_engine_measured(worker: Running) -> None:
    end = execute(worker, prompt="Tell me a story", temperature=0, max_tokens=12)[-2]
    assert end["stop_reason"] == "MAX_TOKENS"
    assert end["tokens_out"] == 12
    assert end["prompt_tokens"] > 0
    assert end["decode_time_ms"] > 0
    assert end["stop_sequence_matched"] is None


def test_execute_end_names_the_stop_sequence_that_matched(worker: Running) -> None:
    end = execute(worker, prompt="Tell me a story", temperature=0, stop=["upon a"])[-2]
    assert (end["stop_reason"], end["stop_sequence_matched"]) == ("STOP_SEQUENCE", "upon a")


def test_execute_end_of_a_reply_that_ended_by_itself(worker: Running) -> None:
    assert execute(worker, prompt="Hello", temperature=0)[-2]["stop_reason"] == "EOS"


def test_execute_takes_messages(worker: Running) -> None:
    events = execute(worker, messages=[{"role": "user", "content": "Hello"}], temperature=0)
    assert events[-2]["type"] == "end"


def test_execute_over_the_context_is_one_error_event(worker: Running) -> None:
    events = execute(worker, prompt="word " * 20_000)
    assert [
        event if event == b"[DONE]" else event["type"]
        for event in events
        if event == b"[DONE]" or event["type"] != "narration"
    ] == [
        "started",
        "error",
        b"[DONE]",
    ]
    assert events[-2]["code"] == "CONTEXT_TOO_LONG"
    assert events[-2]["retriable"] is False


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": []}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "max_tokens": "x"}, "max_tokens"),
        ({"prompt": "a", "temperature": -1}, "temperature"),
    ],
)
def test_execute_refuses_what_is_wrong_with_the_fields_path(worker: Running, body: Any, param: str) -> None:
    status, data = post(worker, "/v1/execute", body)
    assert status == 400
    assert json.loads(data)["error"]["param"] == param


def test_execute_refuses_malformed_json(worker: Running) -> None:
    status, data = post(worker, "/v1/execute", b'{"prompt": ')
    assert status == 400
    assert "not valid JSON" in json.loads(data)["error"]["message"]


def test_health_props_and_models(worker: Running) -> None:
    def get(path: str) -> Any:
        with urlopen(worker.url + path, timeout=10) as answer:
            return json.load(answer)

    assert get("/health")["status"] == "ok"
    assert get("/props")["default_generation_settings"]["n_ctx"] == 8192
    assert [model["id"] for model in get("/v1/models")["data"]] == ["tiny"]


def test_c7_a_client_that_leaves_frees_the_engine(worker: Running) -> None:
    connection = http.client.HTTPConnection(urlsplit(worker.url).netloc, timeout=30)
    body = json.dumps({"prompt": "Write a very long essay about rivers.", "max_tokens": 4000, "temperature": 0})
    connection.request("POST", "/v1/execute", body)
    answer = connection.getresponse()
    request_id = answer.headers["x-request-id"]
    answer.read(600)
    connection.close()
    record = json.loads(worker.wait_for_line(f'"{request_id}"'))
    assert record["outcome"] == "cancelled"
    assert record["duration_ms"] < 5000


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    ended = run("worker", "--model", "nowhere.gguf", cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == (
        "penstock: Cannot read the model nowhere.gguf: No such file or directory. "
        "Give --model a GGUF file, or use --demo.\n"
    )


def test_a_model_that_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("not a model")
    ended = run("worker", "--model", "model.gguf", cwd=tmp_path)
    assert ended.returncode == 1
    assert "is not a GGUF file" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_model_that_is_cut_short(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(demo_model().read_bytes()[:300_000])
    ended = run("worker", "--model", "model.gguf", "--port", "0", cwd=tmp_path)
    assert ended.returncode == 1
    assert "model.gguf is cut short: it has 300,000 bytes of 1,013,504." in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_model_of_an_architecture_that_nobody_knows(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", {"general.architecture": "cuneiform"})
    ended = run("worker", "--model", "model.gguf", "--port", "0", cwd=tmp_path)
    assert ended.returncode == 1
    said = "llama.cpp cannot load model.gguf (cuneiform): unknown model architecture: 'cuneiform'."
    assert said in ended.stderr
    assert [line.startswith("penstock: ") for line in ended.stderr.splitlines()] == [True]


def test_a_model_that_needs_more_memory_than_there_is(tmp_path: Path) -> None:
    """Said before it is loaded: a machine that runs out of memory takes others with it."""
    write(tmp_path / "m.gguf", {"llama.context_length": 1 << 30, "llama.attention.head_count_kv": 4096})
    ended = run("worker", "--model", "m.gguf", "--ctx", str(1 << 30), "--port", "0", cwd=tmp_path)
    assert ended.returncode == 1
    assert re.search(r"m needs about [\d,]+ MiB of memory, and [\d,]+ MiB are free\. Take a smaller", ended.stderr)
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ctx", "9000"), "--ctx 9000 is more than the model's context, which is 8192 tokens. Use --ctx 8192 or"),
        (("--host", "0.0.0.0"), "At 0.0.0.0 others can reach the worker, and there is no token. Put one into an"),
        (("--token-env", "NO_SUCH"), "The variable NO_SUCH of --token-env is not set."),
        (("--token-env", "PWD_SHORT"), "The token in PWD_SHORT is shorter than 16 characters."),
    ],
)
def test_what_cannot_be_is_said_at_once(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    ended = run("worker", "--demo", *arguments, "--port", "0", cwd=tmp_path, env={"PWD_SHORT": "secret-1"})
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "secret-1" not in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_model_file_of_ones_own(tmp_path: Path) -> None:
    shutil.copy(demo_model(), tmp_path / "mine.gguf")
    options = ("--port", "0", "--log", "json", "--debug")
    with running("worker", "--model", "mine.gguf", *options, cwd=tmp_path) as started:
        assert execute(started, prompt="Hello")[-2]["type"] == "end"
        record = json.loads(started.wait_for_line("^{"))
        assert record["why"]["generation_tps"] == "by the server's clock", "--debug says why"
        with urlopen(f"{started.url}/health", timeout=10) as answer:
            assert json.load(answer)["model"] == "mine"


def test_a_worker_with_a_token_a_name_and_sizes_of_its_own(tmp_path: Path) -> None:
    token = "0123456789abcdef-worker"
    options = ("--alias", "my-model", "--ctx", "2048", "--slots", "1", "--threads", "2", "--while-loading", "refuse")
    arguments = ("worker", "--demo", *options, "--token-env", "TOKEN", "--port", "0")
    with running(*arguments, cwd=tmp_path, env={"TOKEN": token}) as started:
        assert "my-model (llama Q8_0; 1 slot of 2,048 tokens, 2 threads)" in started.wait_for_line("running")

        def ask(path: str, **headers: str) -> tuple[int, Any]:
            connection = http.client.HTTPConnection(urlsplit(started.url).netloc, timeout=30)
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            said = json.load(answer)
            connection.close()
            return answer.status, said

        until(lambda: ask("/health")[1]["status"] == "ok", "the model")  # which asks nobody for anything
        assert ask("/ready") == (200, {"status": "ready", "model": "my-model"})
        for path in ("/v1/models", "/v1/jobs", "/v1/info", "/slots"):
            assert ask(path)[0] == 401
            assert ask(path, authorization="Bearer something-else")[0] == 401
            assert ask(path, authorization=f"Bearer {token}")[0] == 200
        assert ask("/v1/info", **{"x-api-key": token})[1]["context_tokens"] == 2048
        assert [model["id"] for model in ask("/v1/models", authorization=f"Bearer {token}")[1]["data"]] == ["my-model"]
        assert not any(token in line for line in started.lines)


def test_a_port_that_is_taken(worker: Running, tmp_path: Path) -> None:
    port = str(urlsplit(worker.url).port)
    ended = run("worker", "--demo", "--port", port, cwd=tmp_path)
    assert ended.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use." in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_no_model_is_a_wrong_call(tmp_path: Path) -> None:
    assert run("worker", cwd=tmp_path).returncode == 2
    assert run("worker", "--demo", "--model", "x.gguf", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"host": "evil.example"}, "names of this machine alone; `evil.example` is none. Ask 127.0.0.1 or localhost."),
        ({"origin": "https://evil.example"}, "Pages of https://evil.example may not ask here."),
    ],
)
def test_a_page_of_a_browser_does_not_get_in(headers: dict[str, str], said: str, worker: Running) -> None:
    connection = http.client.HTTPConnection(urlsplit(worker.url).netloc, timeout=30)
    connection.request("POST", "/v1/execute", json.dumps({"prompt": "Hi"}).encode(), headers)
    answer = connection.getresponse()
    assert (answer.status, said in json.load(answer)["error"]["message"]) == (403, True)
    connection.close()


# --- jobs -------------------------------------------------------------------------------------------------------------


def asked(at: Running, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(urlsplit(at.url).netloc, timeout=30)
    connection.request(method, path, json.dumps(body).encode() if body is not None else None)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    is_json = answer.headers["content-type"].startswith("application/json")
    return answer.status, json.loads(data) if is_json else events_of(data)


def test_a_job_is_read_by_two_and_again(worker: Running) -> None:
    status, made = asked(worker, "POST", "/v1/jobs", {"prompt": "Tell me a story", "temperature": 0, "max_tokens": 30})
    assert status == 202
    heard = [asked(worker, "GET", made["stream_url"])[1] for _ in range(2)]
    texts = ["".join(event["t"] for event in events[:-1] if event["type"] == "token") for events in heard]
    alone = execute(worker, prompt="Tell me a story", temperature=0, max_tokens=30)
    assert texts == ["".join(event["t"] for event in alone[:-1] if event["type"] == "token")] * 2
    status, info = asked(worker, "GET", f"/v1/jobs/{made['job_id']}")
    assert (status, info["state"], info["tokens_out"], info["stop_reason"]) == (200, "complete", 30, "MAX_TOKENS")


def test_c7_jobs_are_cancelled_in_line_and_at_work(worker: Running) -> None:
    """Twelve long jobs for four slots: the last one has not begun when it is cancelled."""
    long = {"prompt": "Write a very long essay about rivers.", "max_tokens": 4000, "temperature": 0}
    made = [asked(worker, "POST", "/v1/jobs", long)[1] for _ in range(12)]
    assert made[-1]["position"] > 0
    for each in reversed(made):
        status, info = asked(worker, "DELETE", f"/v1/jobs/{each['job_id']}")
        assert status == 200
        assert info["state"] in ("cancelled", "complete")
    started, *_, error, done = asked(worker, "GET", made[-1]["stream_url"])[1]
    assert (started["type"], error["type"], error["code"], done) == ("started", "error", "CANCELLED", b"[DONE]")
    _, listed = asked(worker, "GET", "/v1/jobs")
    assert {job["state"] for job in listed["jobs"]} <= {"complete", "cancelled", "failed"}


def test_an_option_that_no_engine_gets_would_be_seen(worker: Running) -> None:
    """The seed and the sampling reach the engine: the same ones give the same words, others give others."""

    def words(**sampling: Any) -> str:
        events = execute(worker, prompt="Tell me a story", max_tokens=24, **sampling)
        return "".join(event["t"] for event in events[:-1] if event["type"] == "token")

    hot = [words(temperature=2, seed=seed) for seed in (1, 1, 2, 3)]
    assert hot[0] == hot[1]
    assert len(set(hot)) > 1
    assert words(temperature=2, seed=7, top_k=1) == words(temperature=0)


def test_a_terminal_shows_the_load_and_the_bar_goes_with_it(tmp_path: Path) -> None:
    with terminal("worker", "--demo", "--port", "0", cwd=tmp_path, env={"TERM": "xterm", "COLUMNS": "100"}) as shown:
        shown.until(r"Loading tiny.*1\.0/1\.0 MB")
        shown.interrupt()
        code, _ = shown.ended()
    assert code == 0


def test_what_is_no_terminal_is_shown_no_bar(worker: Running) -> None:
    assert not any("Loading" in line for line in worker.lines)
