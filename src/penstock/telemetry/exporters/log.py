"""Records as lines of text: `pretty` for people, `compact` for grep, `json` for programs, `off` for nobody.

One write and one flush per batch, so that lines of one process are never torn. No value can forge a second field or
line. What the stream's encoding cannot say is escaped, not lost. The stream belongs to the caller and is not closed.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal

import msgspec

from penstock.telemetry.record import compact_line, count, duration, percent, rate, word
from penstock.telemetry.why import why, why_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import tzinfo
    from typing import TextIO

    from penstock.telemetry.record import CallRecord

Format = Literal["pretty", "compact", "json", "off"]

_DIM, _GREEN, _YELLOW, _RED, _PLAIN = "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"
_COLORS = {"complete": _GREEN, "cancelled": _YELLOW}


#: what Linux writes to a pipe at once
PIPE_BUF = 4096


class LogExporter:
    """`color` and `zone` (None: local time) are for `pretty` alone.

    `debug`: with each record, why its figures have their values. `is_shared`: other processes write to the same stream,
    which keeps no line whole but what one write of at most `PIPE_BUF` bytes brings.
    """

    name = "log"

    def __init__(
        self,
        stream: TextIO,
        *,
        format: Format = "pretty",
        color: bool = False,
        zone: tzinfo | None = None,
        is_shared: bool = False,
        debug: bool = False,
    ) -> None:
        self._stream = stream
        self._is_shared = is_shared
        pretty = partial(pretty_line, color=color, zone=zone)
        lines: dict[Format, Callable[[CallRecord], str] | None] = {
            "pretty": _with_why(pretty) if debug else pretty,
            "compact": _with_why(compact_line) if debug else compact_line,
            "json": json_line_with_why if debug else json_line,
            "off": None,
        }
        self._line = lines[format]

    def export(self, records: list[CallRecord]) -> None:
        line = self._line
        if line is None:
            return
        lines = [line(record) + "\n" for record in records]
        for text in _pieces(lines) if self._is_shared else ["".join(lines)]:
            self._write(text)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # before any of it was written
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        self._stream.flush()

    def close(self) -> None:
        pass


def _pieces(lines: list[str]) -> Iterator[str]:
    """Whole lines, as many at a time as a pipe takes in one."""
    piece: list[str] = []
    size = 0
    for line in lines:
        length = len(line.encode(errors="replace"))
        if piece and size + length > PIPE_BUF:
            yield "".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += length
    yield "".join(piece)


def json_line(record: CallRecord) -> str:
    return msgspec.json.encode(record).decode()


def json_line_with_why(record: CallRecord) -> str:
    """The record with one field more, `why`: a sentence by figure."""
    return msgspec.json.encode({**msgspec.structs.asdict(record), "why": why(record)}).decode()


def _with_why(line: Callable[[CallRecord], str]) -> Callable[[CallRecord], str]:
    return lambda record: line(record) + why_lines(record)


@lru_cache(maxsize=4)
def _clock(second: int, zone: tzinfo | None) -> str:
    return f"{datetime.fromtimestamp(second, zone):%H:%M:%S}"


def pretty_line(record: CallRecord, *, color: bool = False, zone: tzinfo | None = None) -> str:
    """`12:03:41 ✓ complete    Qwen3-14B    125 → 42 tok   850.5/75.2 tok/s  ctx 15.2%  ttft 38ms  dur 1.2s  stop`"""
    at = _clock(int(record.time), zone)
    ending = f"{'✓' if record.outcome == 'complete' else '✗'} {record.outcome:<14}"
    if color:
        at = f"{_DIM}{at}{_PLAIN}"
        ending = f"{_COLORS.get(record.outcome, _RED)}{ending}{_PLAIN}"
    # One word for why: the error's where there is one. `upstream_error` alone would tell nobody anything.
    why = record.finish_reason if record.outcome == "complete" else record.error_type
    line = (
        f"{at} {ending} {word(record.model or record.model_requested):<28}"
        f" {count(record.prompt_tokens):>7} → {count(record.completion_tokens):<6} tok"
        f" {rate(record.prompt_tps):>8}/{rate(record.generation_tps):<7} tok/s"
        f"  ctx {percent(record.context_percent):>6}"
        f"  ttft {duration(record.ttft_ms):>6}  dur {duration(record.duration_ms):>6}  {word(why)}"
    )
    if record.attempts > 1:
        line += f"  {record.attempts} attempts"
    return line
