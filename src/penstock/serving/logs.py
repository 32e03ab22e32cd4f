"""What the process itself has to say (not its records): lines on standard error, for people or for programs.

`json`: an object per line, with `time` (unix seconds), `level`, `logger`, `message`, and `request_id` where it was said
while a request was answered. Otherwise: `penstock: message`. A traceback stands in the object's `exception`, or below
the line. No message holds a key, a prompt or a reply (C13); what may be one is never passed to a logger.
"""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from typing import TextIO

#: the request that is being answered, in its own task
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)


def log_to(stream: TextIO | None = None, *, as_json: bool) -> None:
    """Send what loggers of this process say to `stream`, by default standard error. The last call counts."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_Json() if as_json else _Plain("penstock: %(message)s"))
    root = logging.getLogger()
    for known in [known for known in root.handlers if isinstance(known.formatter, _Json | _Plain)]:
        root.removeHandler(known)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("penstock").setLevel(logging.INFO)


class _Plain(logging.Formatter):
    """For people."""


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        request_id = REQUEST_ID.get()
        if request_id is not None:
            said["request_id"] = request_id
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(said).decode()
