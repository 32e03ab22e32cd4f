"""A conversation as `penstock chat` keeps it: what was said, what is still to be answered, and the file it is saved in.

A turn that came to nothing leaves no trace but the message to ask again. One that was cut keeps what came, text alone:
thoughts without their signature, and half a call, mean nothing to any provider.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from penstock.canon.errors import PenstockError
from penstock.canon.events import Refusal, Text
from penstock.canon.request import Message

if TYPE_CHECKING:
    from penstock.canon.response import Response

#: of a saved file, so that no other is taken for one
FORMAT = "penstock-conversation"


class Saved(Struct, frozen=True):
    """What a file holds, as JSON. `model` says whom it was held with; `format` is `FORMAT`."""

    format: str
    model: str | None
    system: str | None
    messages: tuple[Message, ...]


class Conversation:
    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self.messages: list[Message] = []
        self._unanswered: Message | None = None

    def asked(self, message: Message) -> list[Message]:
        """What is sent for this message."""
        self._unanswered = message
        return [*self.messages, message]

    def answered(self, response: Response, *, is_whole: bool) -> None:
        """What it came to."""
        kept = response.message.parts
        if not is_whole:
            kept = tuple(part for part in kept if isinstance(part, Text | Refusal) and part.text)
        if self._unanswered is not None and kept:
            self.messages += (self._unanswered, Message("assistant", kept))
            self._unanswered = None

    def taken_back(self) -> Message | None:
        """The last message of the user's, to be asked again; its answer, if it had one, is gone."""
        if self._unanswered is not None:
            return self._unanswered
        if not self.messages:
            return None
        message, _ = self.messages[-2:]
        del self.messages[-2:]
        self._unanswered = message
        return message

    def clear(self) -> None:
        self.messages = []
        self._unanswered = None

    def save(self, path: Path, model: str) -> None:
        """Write all of it, or nothing. Another file than a saved conversation is left as it is."""
        if path.exists():
            self._read(path)
        data = msgspec.json.format(msgspec.json.encode(Saved(FORMAT, model, self.system, tuple(self.messages))))
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            # What was said is its owner's alone.
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data + b"\n")
            beside.replace(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise PenstockError(f"Cannot write {path}: {error.strerror or error}.", fix="Name another file.") from error

    def load(self, path: Path) -> Saved:
        """Go on with what the file holds."""
        saved = self._read(path)
        self.system, self.messages, self._unanswered = saved.system, list(saved.messages), None
        return saved

    @staticmethod
    def _read(path: Path) -> Saved:
        try:
            saved = msgspec.json.decode(path.read_bytes(), type=Saved)
        except OSError as error:
            raise PenstockError(f"Cannot read {path}: {error.strerror or error}.", fix="Check its name.") from error
        except (msgspec.DecodeError, RecursionError):
            saved = None
        roles = [message.role for message in saved.messages] if saved is not None else []
        if saved is None or saved.format != FORMAT or roles != ["user", "assistant"] * (len(roles) // 2):
            raise PenstockError(f"{path} is no saved conversation.", fix="Name another file.")
        return saved
