"""Everything that an upstream can do wrong, by name: a table of functions from a plan to a plan.

A name may end in a number: `cut-after-3`, `status-429`, `stall-after-2`. To add a fault: one function and one row.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from penstock.canon.errors import ConfigError
from penstock.testing import endings, looks
from penstock.testing.plan import Plan

if TYPE_CHECKING:
    from penstock.dialects.base import Dialect


class Fault(Struct, frozen=True):
    """A fault as it was asked for: its name, and its number where it has one."""

    name: str
    number: int | None = None

    def apply(self, plan: Plan, dialect: Dialect) -> Plan:
        changed: Plan = FAULTS[self.name].apply(plan, self.number, dialect)
        return changed


class Row(Struct, frozen=True):
    """`default` None: the fault takes no number. `streams`: it is about streams alone."""

    summary: str
    apply: Any  # Callable[[Plan, int, Dialect], Plan]
    default: int | None = None


def parse_fault(text: str) -> Fault:
    """`cut-after-3` → a fault. Raises `ConfigError` with the nearest that exists."""
    name, number = text.strip(), None
    if name not in FAULTS:
        found = re.fullmatch(r"(.*?)-(\d+)", name)
        if found is not None and found[1] in FAULTS:
            name, number = found[1], int(found[2])
    row = FAULTS.get(name)
    if row is None:
        close = difflib.get_close_matches(re.sub(r"-\d+$", "", name), FAULTS, n=1)
        fix = f"Did you mean `{close[0]}`?" if close else "`penstock simulate --faults` lists them."
        raise ConfigError(f"There is no fault `{text}`.", fix=fix)
    if number is not None and row.default is None:
        raise ConfigError(f"The fault `{name}` takes no number.", fix=f"Write `{name}`.")
    return Fault(name, row.default if number is None else number)


def _as_asked_otherwise(plan: Plan, number: int, dialect: Dialect) -> Plan:
    """The upstream itself looks for these two, and answers in the other form."""
    return plan


FAULTS: dict[str, Row] = {
    "refuse": Row("the connection breaks, and for N ms nobody listens", endings.refuse, 500),
    "reset": Row("the connection breaks before an answer", endings.reset),
    "no-answer": Row("the connection is closed without an answer", endings.no_answer),
    "silent": Row("the request is taken, and nothing is said", endings.silent),
    "slow-head": Row("the answer's head comes after N ms", endings.slow_head, 500),
    "status": Row("the status N with an error of the dialect, with Retry-After where it belongs", endings.status, 500),
    "html": Row("a page with 200", endings.html),
    "json": Row("a document though a stream was asked for", _as_asked_otherwise),
    "sse": Row("a stream though a document was asked for", _as_asked_otherwise),
    "cut-after": Row("the connection is closed after N pieces of content", endings.cut_after, 3),
    "reset-after": Row("the connection breaks after N pieces of content", endings.reset_after, 3),
    "end-after": Row(
        "the body ends properly after N pieces of content, without the dialect's end", endings.end_after, 3
    ),
    "cut-bytes": Row("the connection is closed after N bytes", endings.cut_bytes, 100),
    "reset-bytes": Row("the connection breaks after N bytes", endings.reset_bytes, 100),
    "cut-inside": Row("the connection is closed inside the Nth piece of content", endings.cut_inside, 2),
    "stall-before-content": Row("what begins a stream, and then nothing", endings.stall_start),
    "stall-after": Row("nothing more after N pieces of content", endings.stall_after, 2),
    "stay-open": Row("the whole reply, and the connection stays open", endings.hang_open),
    "no-done": Row("without the terminator", endings.no_terminator),
    "no-finish": Row("the terminator without what proves the end", endings.no_finish),
    "double-done": Row("the terminator twice", endings.double_terminator),
    "late-done": Row("the terminator after N ms", endings.late_terminator, 300),
    "glued-done": Row("the end in one write", endings.glued),
    "garbage": Row("bytes that mean nothing after the end", endings.garbage),
    "usage-first": Row("usage in the first chunk (OpenAI chat)", looks.usage_first),
    "usage-last": Row("usage in the chunk that proves the end (OpenAI chat)", looks.usage_last),
    "usage-every": Row("usage in every chunk (OpenAI chat)", looks.usage_every),
    "usage-never": Row("no usage", looks.usage_never),
    **{
        f"error-{shape}": Row(f"an error as {shape} sends it, after N pieces of content", endings.error(shape), 2)
        for shape in endings.ERRORS
    },
    "pings": Row("signs of life, and no content after N pieces of it", looks.pings, 0),
    "endless": Row("content without an end", looks.endless),
    "giant": Row("a frame of more than a megabyte", looks.giant),
    "crlf": Row("CRLF for line ends", looks.mapped(lambda data: data.replace(b"\n", b"\r\n"))),
    "cr": Row("CR for line ends", looks.mapped(lambda data: data.replace(b"\n", b"\r"))),
    "bom": Row("a byte order mark first", looks.bom),
    "no-space": Row("no space after `data:`", looks.mapped(looks.no_space)),
    "multi-line": Row("JSON over two `data:` lines", looks.mapped(looks.multiline)),
    "bytewise": Row("every byte in a write of its own", looks.bytewise),
    "one-write": Row("everything in one write", looks.one_write),
    "gzip": Row("compressed, though nobody asked", looks.gzipped),
    "plain-type": Row("a stream that is called text/plain", looks.plain_type),
    "no-index": Row("no `index` anywhere", looks.left_out("index", "output_index", "content_index")),
    "no-role": Row("no `role` anywhere", looks.left_out("role")),
    "no-model": Row("no `model` anywhere", looks.left_out("model", "modelVersion")),
    "no-id": Row("no `id` anywhere", looks.left_out("id", "responseId")),
    "unknown-fields": Row("a field in each JSON object that nobody knows", looks.unknown_fields),
    "bad-arguments": Row("a tool call whose arguments are no JSON", looks.bad_arguments),
}
