"""Talk with a model. It remembers the conversation; /help lists what else it does.

Example: penstock chat -m local:tiny --base-url http://127.0.0.1:8066/v1

Ctrl-C cancels the reply and goes on; Ctrl-D leaves. In a pipe each line is a message, and the first failure ends it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.canon.errors import PenstockError
from penstock.canon.request import Message
from penstock.cli.asking import (
    INTERRUPTED,
    BaseUrlOption,
    DialectOption,
    MaxTokensOption,
    ModelOption,
    SystemOption,
    TemperatureOption,
    Words,
    footer,
    told,
    warn,
)
from penstock.cli.conversing import Conversation
from penstock.cli.prompt import Lines

if TYPE_CHECKING:
    from collections.abc import Callable

_HELP = """\
/model [SPEC]   ask another model from here on; without one, say which is asked
/system [TEXT]  set the system prompt; without one, say it; `-` for none
/retry          ask the last message again
/clear          forget what was said
/save FILE      keep the conversation in a file
/load FILE      go on with one that was saved
/quit           leave; so does Ctrl-D
//…             a message that begins with a slash
\"\"\"             begins a message of several lines, and ends it"""


def chat(
    model: ModelOption,
    base_url: BaseUrlOption = None,
    dialect: DialectOption = None,
    system: SystemOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    history: Annotated[
        Path | None,
        typer.Option(help="Keep the lines that were typed in this file, for the next time. [default: nowhere]"),
    ] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Say on standard error what each reply took; a terminal is told anyway.")
    ] = False,
) -> None:
    options = {
        "base_url": base_url,
        "dialect": dialect,
        "max_tokens": max_tokens,
        "temperature": temperature,
    }
    talk = _Talk(model, system, options, stats=stats)
    lines = Lines(history)
    try:
        while not talk.is_over:
            try:
                if (line := lines.next()) is None:
                    break
                talk.take(line)
            except KeyboardInterrupt:  # the second of two, which came before there was a prompt again
                if not lines.is_typed:
                    raise
    finally:
        lines.close()


class _Talk:
    """What a line does. On a terminal a mistake is said and the talk goes on; in a pipe it is raised."""

    def __init__(self, model: str, system: str | None, options: dict[str, Any], *, stats: bool) -> None:
        from penstock.client.client import Client

        self.is_over = False
        self._client = Client()
        self._options = options
        self._conversation = Conversation(system)
        self._goes_on = sys.stdin.isatty()
        self._stats = stats or sys.stderr.isatty()
        self._check(model)
        self._model = model

    def take(self, line: str) -> None:
        try:
            if line.startswith("/") and not line.startswith("//"):
                word, _, rest = line[1:].partition(" ")
                self._command(word, rest.strip())
            elif line.strip():
                self._ask(Message.of("user", line.removeprefix("/") if line.startswith("//") else line))
        except PenstockError as error:
            if not self._goes_on:
                raise
            print(f"penstock: {error}", file=sys.stderr)

    def _check(self, model: str) -> None:
        """Raise what is wrong with a model's spec before anything is said to it."""
        from penstock.client.keys import ENV_FILE
        from penstock.client.target import find_target

        where = {name: self._options[name] for name in ("base_url", "dialect")}
        find_target(model, upstreams={}, **where, env_file=ENV_FILE)

    # --- a message ---------------------------------------------------------------------------------------------------

    def _ask(self, message: Message) -> None:
        conversation, shown = self._conversation, Words()
        asked: Any = conversation.asked(message)
        options: Any = {**self._options, "system": conversation.system}

        async def reply() -> Any:
            return await told(self._client.astream(self._model, asked, **options), shown.show)

        found = asyncio.run(reply())
        shown.end()
        is_whole = found.error is None and not found.was_interrupted
        conversation.answered(found.response, is_whole=is_whole)
        warn(found.response.warnings)
        if self._stats:
            print(footer(found.response), file=sys.stderr)
        if found.error is not None:
            raise found.error
        if found.was_interrupted and not self._goes_on:
            raise typer.Exit(INTERRUPTED)

    # --- a command ---------------------------------------------------------------------------------------------------

    def _command(self, word: str, rest: str) -> None:
        from penstock.catalogue.provider import nearest

        commands: dict[str, Callable[[str], None]] = {
            "model": self._set_model,
            "system": self._set_system,
            "retry": self._retry,
            "clear": self._clear,
            "save": self._save,
            "load": self._load,
            "help": self._help,
            "quit": self._quit,
        }
        if word not in commands:
            raise PenstockError(f"There is no /{word}.", fix=nearest(word, commands) + " A message begins with `//`.")
        commands[word](rest)

    def _set_model(self, spec: str) -> None:
        if spec:
            self._check(spec)
            self._model = spec
        _say(f"The model is {self._model}.")

    def _set_system(self, text: str) -> None:
        if text:
            self._conversation.system = None if text == "-" else text
        system = self._conversation.system
        _say(f"The system prompt is: {system}" if system else "There is no system prompt.")

    def _retry(self, _: str) -> None:
        message = self._conversation.taken_back()
        if message is None:
            raise PenstockError("There is nothing to ask again.", fix="Write a message.")
        self._ask(message)

    def _clear(self, _: str) -> None:
        self._conversation.clear()
        _say("All is forgotten but the system prompt.")

    def _save(self, name: str) -> None:
        self._conversation.save(_path(name, "/save"), self._model)
        _say(f"Saved {_several(self._conversation)} in {name}.")

    def _load(self, name: str) -> None:
        saved = self._conversation.load(_path(name, "/load"))
        whom = f" It was held with {saved.model}." if saved.model not in (None, self._model) else ""
        _say(f"Loaded {_several(self._conversation)} of {name}.{whom}")

    def _help(self, _: str) -> None:
        _say(_HELP)

    def _quit(self, _: str) -> None:
        self.is_over = True


def _say(text: str) -> None:
    """Beside the replies, so that a pipe holds nothing else."""
    print(text, file=sys.stderr, flush=True)


def _path(name: str, command: str) -> Path:
    if not name:
        raise PenstockError(f"{command} needs a file.", fix=f"Write {command} FILE.")
    return Path(name).expanduser()


def _several(conversation: Conversation) -> str:
    number = len(conversation.messages)
    return f"{number} message{'' if number == 1 else 's'}"
