"""`penstock chat` on a terminal and in a pipe: what it remembers, what its commands do, and what an interrupt ends."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from penstock.testing import Pace, Reply, Turns, Upstream
from tests.processes import run
from tests.terminals import CTRL_C, CTRL_D, Terminal, program_on_terminal, terminal

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

pytestmark = pytest.mark.process

SLOW = Reply(text=("one ", "two ", *["more "] * 500), pace=Pace(fixed=0.05))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as started:
        yield started


def opened(upstream: Upstream, *arguments: str, cwd: Path) -> AbstractContextManager[Terminal]:
    return terminal("chat", "-m", "local:m", "--base-url", upstream.url, *arguments, cwd=cwd)


def piped(upstream: Upstream, lines: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run("chat", "-m", "local:m", "--base-url", upstream.url, *arguments, cwd=cwd, stdin=lines)


def sent(upstream: Upstream) -> list[list[tuple[str, Any]]]:
    """Each request's messages."""
    bodies = [json.loads(seen.body) for seen in upstream.seen]
    return [[(each["role"], each["content"]) for each in body["messages"]] for body in bodies]


def test_it_remembers_what_was_said(upstream: Upstream, tmp_path: Path) -> None:
    upstream.script = Turns(Reply(text="Hello, Ada."), Reply(text="Your name is Ada."))
    with opened(upstream, "--system", "Be brief.", cwd=tmp_path) as shown:
        shown.until("> ")
        shown.type("I am Ada.\n")
        shown.until(r"Hello, Ada\.\nm · 9/3 tokens · .* · stop\n> ")
        shown.type("My name?\n")
        shown.until(r"Your name is Ada\.\n.*\n> ")
        shown.type(CTRL_D)
        code, _ = shown.ended()
    assert code == 0
    first = [("system", "Be brief."), ("user", "I am Ada.")]
    assert sent(upstream) == [first, [*first, ("assistant", "Hello, Ada."), ("user", "My name?")]]


def test_an_interrupt_cancels_the_reply_and_goes_on(upstream: Upstream, tmp_path: Path) -> None:
    upstream.script = Turns(SLOW, Reply(text="Good."))
    with opened(upstream, cwd=tmp_path) as shown:
        shown.until("> ")
        shown.type("Tell me\n")
        shown.until("one two ")
        shown.type(CTRL_C)
        shown.until(r" · cancelled\n> ")
        shown.type("Go on\n")
        shown.until(r"Good\.\n.*\n> ")
        shown.type("/quit\n")
        code, screen = shown.ended()
    assert (code, "Traceback" in screen) == (0, False)
    assert upstream.seen[0].wait_over().closed_at is not None
    asked, kept, again = sent(upstream)[1]
    assert (asked, again) == (("user", "Tell me"), ("user", "Go on"))
    assert kept[0] == "assistant"
    assert kept[1].startswith("one two")
    assert len(kept[1]) < len("one two") + 5 * 400


def test_an_impatient_interrupt_ends_no_more_than_the_reply(upstream: Upstream, tmp_path: Path) -> None:
    upstream.script = Turns(SLOW, Reply(text="Good."))
    with opened(upstream, cwd=tmp_path) as shown:
        shown.until("> ")
        shown.type("Tell me\n")
        shown.until("one two ")
        for _ in range(5):
            shown.interrupt()
            time.sleep(0.01)
        shown.until(r"\n> ")
        for _ in range(3):  # one that readline saw too late takes a line with it
            shown.type("Go on\n")
            with suppress(AssertionError):
                shown.until(r"Good\.\n.*\n> ", timeout_s=5)
                break
        shown.type(CTRL_D)
        code, screen = shown.ended()
    assert (code, "Traceback" in screen, "Good." in screen) == (0, False, True)


def test_an_interrupt_at_the_prompt_ends_nothing(upstream: Upstream, tmp_path: Path) -> None:
    with opened(upstream, cwd=tmp_path) as shown:
        shown.until("> ")
        shown.type("half a line")
        shown.until("half a line")
        shown.interrupt()
        shown.until(r"\(Ctrl-D or /quit leaves\.\)\n> ")
        shown.type("Hi\n")
        shown.until(r"Hello from the simulator\.\n.*\n> ")
        shown.type(CTRL_D)
        assert shown.ended()[0] == 0
    assert sent(upstream) == [[("user", "Hi")]]


#: What readline calls last before it waits for a key raises SIGINT in C: nothing of Python's runs, and looks for it, in
#: between. That is where an interrupt falls now and then on a busy machine.
INTERRUPTED_BEFORE_IT_WAITS = """
import ctypes, functools, readline
from penstock.cli.prompt import Lines

lines = Lines(None)
send = ctypes.PyDLL(None)["raise"]
for _ in range(3):
    readline.set_startup_hook(functools.partial(send, 2))
    readline.set_pre_input_hook(readline.set_startup_hook)  # once
    print("line:", lines.next())
"""


def test_an_interrupt_right_before_the_wait_for_a_key_is_seen_at_once(tmp_path: Path) -> None:
    with program_on_terminal(sys.executable, "-c", INTERRUPTED_BEFORE_IT_WAITS, cwd=tmp_path) as shown:
        for text in ("one", "two", "three"):
            shown.until(r"\(Ctrl-D or /quit leaves\.\)\n> ")  # and no key was pressed
            shown.type(f"{text}\n")
            shown.until(f"line: {text}\n")
        assert shown.ended()[0] == 0


def test_a_failure_is_one_sentence_and_can_be_retried(upstream: Upstream, tmp_path: Path) -> None:
    upstream.script = Turns(Reply(faults=("status-400",)), Reply(text="First."), Reply(text="Second."))
    with opened(upstream, cwd=tmp_path) as shown:
        shown.until("> ")
        shown.type("/retry\n")
        shown.until(r"penstock: There is nothing to ask again\.[^\n]*\n> ")
        shown.type("Hi\n")
        said = shown.until(r"\n> ")
        assert said.count("penstock: ") == 1
        assert "Traceback" not in said
        shown.type("/retry\n")
        shown.until(r"First\.\n.*\n> ")
        shown.type("/retry\n")
        shown.until(r"Second\.\n.*\n> ")
        shown.type("And?\n")
        shown.until(r"Second\.\n.*\n> ")
    hi = ("user", "Hi")
    assert sent(upstream) == [[hi], [hi], [hi], [hi, ("assistant", "Second."), ("user", "And?")]]


def test_another_model_and_another_system_prompt(upstream: Upstream, tmp_path: Path) -> None:
    lines = "/model local:other\n/system Be kind.\nHi\n/system -\n/clear\nHi\n/model\n//model\n"
    ended = piped(upstream, lines, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert [json.loads(seen.body)["model"] for seen in upstream.seen] == ["other"] * 3
    hi, reply = ("user", "Hi"), ("assistant", "Hello from the simulator.")
    assert sent(upstream) == [[("system", "Be kind."), hi], [hi], [hi, reply, ("user", "/model")]]
    assert ended.stderr.splitlines()[-1] == "The model is local:other."


def test_a_pipe_holds_the_replies_alone(upstream: Upstream, tmp_path: Path) -> None:
    upstream.script = Turns(Reply(text="One."), Reply(text="Two."))
    ended = piped(upstream, 'Hi\n/help\n\n"""\nfirst\nsecond\n"""\n/quit\nnever\n', cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "One.\nTwo.\n")
    assert "/retry" in ended.stderr
    assert sent(upstream)[1][-1] == ("user", "first\nsecond")
    assert len(upstream.seen) == 2


def test_a_conversation_is_saved_and_gone_on_with(upstream: Upstream, tmp_path: Path) -> None:
    upstream.script = Turns(Reply(text="Hello, Ada.", reasoning="She said so."), Reply(text="Ada."))
    ended = piped(upstream, "I am Ada.\n/save it.json\n/save it.json\n", "--system", "Be brief.", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "Hello, Ada.\n")
    assert ended.stderr == "Saved 2 messages in it.json.\n" * 2
    assert (tmp_path / "it.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["it.json"]
    again = piped(upstream, "/load it.json\nMy name?\n", "-m", "local:n", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, "Ada.\n")
    assert again.stderr == "Loaded 2 messages of it.json. It was held with local:m.\n"
    said = [("system", "Be brief."), ("user", "I am Ada."), ("assistant", "Hello, Ada."), ("user", "My name?")]
    assert sent(upstream)[1] == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/modle x:y", "There is no /modle. Did you mean `model`? A message begins with `//`."),
        ("/model nobody:m", "There is no provider `nobody`."),
        ("/save", "/save needs a file. Write /save FILE."),
        ("/save notes.md", "notes.md is no saved conversation. Name another file."),
        ("/save nowhere/it.json", "Cannot write nowhere/it.json: No such file or directory."),
        ("/load nowhere.json", "Cannot read nowhere.json: No such file or directory."),
        ("/load notes.md", "notes.md is no saved conversation. Name another file."),
        ("/load odd.json", "odd.json is no saved conversation. Name another file."),
    ],
)
def test_a_mistake_in_a_pipe_ends_it_in_one_sentence(line: str, said: str, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("mine")
    odd = {
        "format": "penstock-conversation",
        "model": None,
        "system": None,
        "messages": [{"role": "user", "parts": []}],
    }
    (tmp_path / "odd.json").write_text(json.dumps(odd))
    ended = (
        run("chat", "-m", "m", "--base-url", upstream.url, cwd=tmp_path, stdin=f"{line}\nHi\n")
        if line != "/model nobody:m"
        else run_without_url(tmp_path, line)
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"penstock: {said}")
    assert ended.stderr.count("\n") == 1
    assert (tmp_path / "notes.md").read_text() == "mine"
    assert upstream.seen == []


def run_without_url(cwd: Path, line: str) -> subprocess.CompletedProcess[str]:
    """With a base URL whoever is named is there."""
    return run("chat", "-m", "ollama:m", cwd=cwd, stdin=f"{line}\nHi\n")


def test_an_unknown_model_is_said_before_the_first_word(tmp_path: Path) -> None:
    ended = run("chat", "-m", "nobody:m", cwd=tmp_path, stdin="Hi\n")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("penstock: There is no provider `nobody`.")


def test_the_history_is_kept_where_its_owner_says_so_alone(upstream: Upstream, tmp_path: Path) -> None:
    for arguments in ((), ("--history", "typed")):
        with opened(upstream, *arguments, cwd=tmp_path) as shown:
            shown.until("> ")
            shown.type("Hi there\n")
            shown.until(r"Hello from the simulator\.\n.*\n> ")
            shown.type(CTRL_D)
            assert shown.ended()[0] == 0
        assert [path.name for path in tmp_path.iterdir()] == (["typed"] if arguments else [])
    assert "Hi there" in (tmp_path / "typed").read_text()
    assert (tmp_path / "typed").stat().st_mode & 0o777 == 0o600
    with opened(upstream, "--history", "typed", cwd=tmp_path) as shown:
        shown.until("> ")
        shown.type("\x10\n")  # what the arrow up means: the line before
        shown.until(r"Hello from the simulator\.\n.*\n> ")
    assert sent(upstream)[-1] == [("user", "Hi there")]
