"""`penstock ask` as a process: what is sent, what is printed, and how it ends."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from penstock.canon.events import Event
from penstock.testing import Counts, Pace, Reply, Upstream
from tests.processes import command, run
from tests.scripted_upstream import Exchange, ScriptedUpstream
from tests.terminals import CTRL_C, terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.process

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(Reply(text="Hello there.")) as started:
        yield started


def asked(upstream: Upstream, *arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return run("ask", "-m", "local:m", "--base-url", upstream.url, *arguments, cwd=cwd, stdin=stdin)


def content(upstream: Upstream) -> Any:
    """What the upstream was sent as the user's message."""
    return json.loads(upstream.seen[-1].body)["messages"][-1]["content"]


def test_a_prompt_is_answered(upstream: Upstream, tmp_path: Path) -> None:
    ended = asked(upstream, "Hi", cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "Hello there.\n", "")
    assert content(upstream) == "Hi"


@pytest.mark.parametrize("arguments", [("-",), ()])
def test_standard_input_is_the_prompt(arguments: tuple[str, ...], upstream: Upstream, tmp_path: Path) -> None:
    assert asked(upstream, *arguments, cwd=tmp_path, stdin="What is this?\n").returncode == 0
    assert content(upstream) == "What is this?\n"


def test_what_is_piped_in_goes_with_the_prompt(upstream: Upstream, tmp_path: Path) -> None:
    assert asked(upstream, "Explain", cwd=tmp_path, stdin="a = 1").returncode == 0
    assert [part["text"] for part in content(upstream)] == ['<file name="standard input">\na = 1\n</file>\n', "Explain"]


def test_a_pipe_that_nobody_closes_is_not_waited_for_without_need(upstream: Upstream, tmp_path: Path) -> None:
    """A terminal or /dev/null is no pipe; a prompt of its own is enough there."""
    ended = subprocess.run(
        [*command("ask", "Hi", "-m", "local:m", "--base-url", upstream.url)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "Hello there.\n")


def test_files_are_told_by_their_content(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("naïve\n", encoding="utf-16")
    (tmp_path / "photo.txt").write_bytes(PNG)
    (tmp_path / "paper").write_bytes(b"%PDF-1.7 and so on")
    (tmp_path / "voice").write_bytes(b"RIFF\0\0\0\0WAVEfmt ")
    files = [argument for name in ("notes", "photo.txt", "paper", "voice") for argument in ("--file", name)]
    ended = asked(upstream, "Hi", *files, "--image", "https://example.com/cat.png", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    web, notes, photo, paper, voice, prompt = content(upstream)
    assert web["image_url"]["url"] == "https://example.com/cat.png"
    assert notes["text"] == '<file name="notes">\nnaïve\n</file>\n'
    assert photo["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert paper["file"]["filename"] == "paper"
    assert paper["file"]["file_data"].startswith("data:application/pdf;base64,")
    assert voice["input_audio"]["format"] == "wav"
    assert prompt["text"] == "Hi"


def test_an_image_comes_through_a_pipe(upstream: Upstream, tmp_path: Path) -> None:
    ended = subprocess.run(
        command("ask", "What is it?", "-m", "local:m", "--base-url", upstream.url, "--image", "-"),
        input=PNG, capture_output=True, cwd=tmp_path, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert content(upstream)[0]["image_url"]["url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Hi", "--file", "nowhere.txt"), "Cannot read nowhere.txt: No such file or directory."),
        (("Hi", "--file", "."), "Cannot read .: Is a directory."),
        (("Hi", "--file", "program"), "program is neither text nor an image, a PDF, WAV or MP3."),
        (("Hi", "--file", "nothing"), "nothing is empty."),
        (("Hi", "--file", "large"), "large is larger than 20 MiB"),
        (("Hi", "--image", "text"), "text is no PNG, JPEG, GIF or WebP."),
        (("-", "--file", "-"), "Standard input is read once."),
        (("Hi", "--file", "-", "--image", "-"), "Standard input is read once."),
        (("Hi", "--schema", "text"), "text is no JSON"),
        (("Hi", "--schema", "list"), "list holds no JSON Schema."),
        (("Hi", "--schema", "nowhere"), "Cannot read nowhere: No such file or directory."),
        (("Hi", "--events", "--json"), "--events and --json are two forms of the same."),
        ((), "There is nothing to ask."),
        (("--file", "text"), "There is nothing to ask."),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_sent(
    arguments: tuple[str, ...], said: str, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "program").write_bytes(b"\x7fELF\0\0\1\xff")
    (tmp_path / "nothing").write_bytes(b"")
    (tmp_path / "text").write_text("plain")
    (tmp_path / "list").write_text("[]")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(20 * 1024 * 1024 + 1)
    ended = asked(upstream, *arguments, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"penstock: {said}")
    assert ended.stderr.count("\n") == 1
    assert upstream.seen == []


def test_a_schema_makes_a_value(upstream: Upstream, tmp_path: Path) -> None:
    upstream.says(Reply(text=' {"age": \n36}'))
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    ended = asked(upstream, "How old?", "--schema", "schema.json", cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, '{"age":36}\n', "")
    assert json.loads(upstream.seen[0].body)["response_format"]["json_schema"]["schema"] == SCHEMA


def test_what_does_not_fit_a_schema_is_no_value(upstream: Upstream, tmp_path: Path) -> None:
    upstream.says(Reply(text='{"age": "old"}'))
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    ended = asked(upstream, "How old?", "--schema", "schema.json", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "does not fit the schema" in ended.stderr
    assert "`--json` prints it all the same." in ended.stderr
    ended = asked(upstream, "How old?", "--schema", "schema.json", "--json", cwd=tmp_path)
    told = json.loads(ended.stdout)
    assert (ended.returncode, told["text"], told["error"]["type"]) == (1, '{"age": "old"}', "schema_mismatch")


def test_events_are_lines_and_the_last_is_the_ending(upstream: Upstream, tmp_path: Path) -> None:
    upstream.says(Reply(reasoning="Hm.", text="Hello there."))
    ended = asked(upstream, "Hi", "--events", cwd=tmp_path)
    *lines, last = ended.stdout.splitlines()
    events = [msgspec.json.decode(line, type=Event) for line in lines]
    assert type(events[0]).__name__ == "Start"
    assert type(events[-1]).__name__ == "Finish"
    assert "".join(json.loads(line)["text"] for line in lines if '"delta"' in line) == "Hm.Hello there."
    end = json.loads(last)
    assert (end["type"], end["outcome"], end["usage"]["output"]) == ("end", "complete", 3)
    assert "error" not in end


def test_a_cut_stream_says_so_in_every_form(upstream: Upstream, tmp_path: Path) -> None:
    upstream.says(Reply(text="one two three four", faults=("cut-after-2",)))
    plain = asked(upstream, "Hi", cwd=tmp_path)
    assert (plain.returncode, plain.stdout) == (1, "one two\n")
    assert plain.stderr.startswith("penstock: ")
    assert plain.stderr.count("\n") == 1
    events = asked(upstream, "Hi", "--events", cwd=tmp_path)
    end = json.loads(events.stdout.splitlines()[-1])
    assert (events.returncode, end["outcome"], end["error"]["type"]) == (1, "truncated", "truncated")
    whole = asked(upstream, "Hi", "--json", cwd=tmp_path)
    told = json.loads(whole.stdout)
    assert (whole.returncode, told["text"], told["outcome"]) == (1, "one two", "truncated")


def test_a_refusal_is_printed(upstream: Upstream, tmp_path: Path) -> None:
    frames = [
        {"choices": [{"index": 0, "delta": {"refusal": "I will not."}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]
    body = "".join(f"data: {json.dumps({'id': 'c', 'model': 'm', **frame})}\n\n" for frame in frames)

    def says(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(body.encode() + b"data: [DONE]\n\n")
        exchange.end()

    with closing(ScriptedUpstream()) as server:
        server.script = says
        ended = run("ask", "Hi", "-m", "local:m", "--base-url", server.url, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "I will not.\n")


def test_stats_are_on_standard_error(upstream: Upstream, tmp_path: Path) -> None:
    upstream.says(Reply(text="Hello there.", usage=Counts(input=12, output=34)))
    ended = asked(upstream, "Hi", "--stats", cwd=tmp_path)
    assert ended.stdout == "Hello there.\n"
    assert ended.stderr.startswith("m · 12/34 tokens · first after ")
    assert ended.stderr.endswith(" · stop\n")


def test_stats_have_the_cost_where_it_is_known(upstream: Upstream, tmp_path: Path) -> None:
    upstream.says(Reply(usage=Counts(input=1000, output=100)))
    (tmp_path / "mine.toml").write_text(
        f'[mine]\nname = "Mine"\nurl = "{upstream.url}"\nauth = "none"\ncost."*" = {{input = 2, output = 20}}\n'
    )
    ended = subprocess.run(
        command("ask", "Hi", "-m", "mine:m", "--stats"), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        cwd=tmp_path, env={**os.environ, "PENSTOCK_PROVIDERS": "mine.toml"}, timeout=60, check=False,
    )  # fmt: skip
    assert " · $0.004 · " in ended.stderr


def test_a_terminal_is_told_what_it_took_and_steered_by_nobody(upstream: Upstream, tmp_path: Path) -> None:
    upstream.says(Reply(text=("Hello \x1b[2J\x9b31m", "there.")))
    with terminal("ask", "Hi", "-m", "local:m", "--base-url", upstream.url, cwd=tmp_path) as shown:
        code, screen = shown.ended()
    assert code == 0
    assert screen.startswith("Hello \ufffd[2J\ufffd31mthere.\nm · 9/3 tokens · ")
    assert "\x1b" not in screen


def test_ctrl_c_cancels_and_keeps_what_came(upstream: Upstream, tmp_path: Path) -> None:
    upstream.says(Reply(text=("one ", "two ", *["more "] * 500), pace=Pace(fixed=0.05)))
    with terminal("ask", "Hi", "-m", "local:m", "--base-url", upstream.url, cwd=tmp_path) as shown:
        shown.until("one two ")
        shown.type(CTRL_C)
        code, screen = shown.ended()
    assert code == 130
    assert "Traceback" not in screen
    assert screen.rstrip().endswith(" · cancelled")
    assert_closed(upstream)


@pytest.mark.parametrize("form", ["--json", "--events"])
def test_an_interrupt_ends_the_forms_of_programs_truly(form: str, upstream: Upstream, tmp_path: Path) -> None:
    upstream.says(Reply(text=("one ", *["more "] * 500), pace=Pace(fixed=0.05)))
    process = interrupted(upstream, form, cwd=tmp_path)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    end = json.loads(out.splitlines()[-1])
    assert end["outcome"] == "cancelled"
    if form == "--json":
        assert end["text"].startswith("one ")
    assert_closed(upstream)


def test_an_interrupt_before_the_first_word_ends_it(upstream: Upstream, tmp_path: Path) -> None:
    upstream.says(Reply(faults=("slow-head-30000",)))
    process = interrupted(upstream, "--json", cwd=tmp_path)
    out, _ = process.communicate(timeout=15)
    assert (process.returncode, json.loads(out)["outcome"]) == (130, "cancelled")
    assert_closed(upstream)


def interrupted(upstream: Upstream, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """A command that is interrupted while it reads its reply."""
    process = subprocess.Popen(
        command("ask", "Hi", "-m", "local:m", "--base-url", upstream.url, *arguments),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
    )  # fmt: skip
    give_up = time.monotonic() + 30
    while not upstream.seen:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.01)
    time.sleep(0.5)  # so that it has read something of it, where there is something
    process.send_signal(signal.SIGINT)
    return process


def test_a_reader_that_leaves_ends_the_reply(upstream: Upstream, tmp_path: Path) -> None:
    """As in `penstock ask … | head -1`."""
    upstream.says(Reply(text=("one\n", *["more "] * 500), pace=Pace(fixed=0.02)))
    process = subprocess.Popen(
        command("ask", "Hi", "-m", "local:m", "--base-url", upstream.url),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "one\n"
    process.stdout.close()
    assert process.wait(30) == 1
    assert process.stderr.read() == ""
    process.stderr.close()
    assert_closed(upstream)


def assert_closed(upstream: Upstream) -> None:
    """The upstream's connection was closed before its reply was over."""
    give_up = time.monotonic() + 5
    while upstream.seen[0].closed_at is None:
        assert time.monotonic() < give_up
        time.sleep(0.01)
