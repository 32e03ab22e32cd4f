"""Faults of how the bytes of a reply look: line ends, sizes, encodings, where usage stands, what is left out. Pure."""

from __future__ import annotations

import gzip
import json
import re
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from penstock.testing.endings import kept, without
from penstock.testing.plan import Piece, Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.dialects.base import Dialect

GIANT_BYTES = 1_200_000

# --- usage (OpenAI chat) ----------------------------------------------------------------------------------------------


def edited(plan: Plan, edit: Callable[[dict[str, Any], Piece], Any]) -> Plan:
    """Each JSON frame of the plan as `edit` leaves it; None: the frame is left out."""
    pieces: list[Piece] = []
    for piece in plan.pieces:
        head, brace, rest = piece.data.partition(b"{")
        try:
            chunk = json.loads(brace + rest)
        except ValueError:
            pieces.append(piece)
            continue
        changed = edit(chunk, piece)
        if changed is not None:
            end = piece.data[len(piece.data.rstrip()) :]
            data = head + json.dumps(changed, ensure_ascii=False).encode() + end
            pieces.append(replace(piece, data=data))
    return replace(plan, pieces=tuple(pieces))


def usage_of(plan: Plan) -> Any:
    for piece in plan.pieces:
        if piece.kind == "usage":
            return json.loads(piece.data[piece.data.index(b"{") :]).get("usage")
    return {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def usage_first(plan: Plan, number: int, dialect: Dialect) -> Plan:
    usage = usage_of(plan)
    first = True

    def edit(chunk: dict[str, Any], piece: Piece) -> Any:
        nonlocal first
        if piece.kind == "usage":
            return None
        if first:
            first = False
            chunk["usage"] = usage
        return chunk

    return edited(plan, edit)


def usage_every(plan: Plan, number: int, dialect: Dialect) -> Plan:
    usage = usage_of(plan)
    return edited(plan, lambda chunk, piece: {**chunk, "usage": usage})


def usage_last(plan: Plan, number: int, dialect: Dialect) -> Plan:
    """In the very chunk that proves the end."""
    usage = usage_of(plan)

    def edit(chunk: dict[str, Any], piece: Piece) -> Any:
        if piece.kind == "usage":
            return None
        return {**chunk, "usage": usage} if piece.kind == "finish" else chunk

    return edited(plan, edit)


def usage_never(plan: Plan, number: int, dialect: Dialect) -> Plan:
    """Under none of its names, in whatever dialect."""
    strip = left_out("usage", "usageMetadata", "prompt_eval_count", "eval_count")
    return strip(replace(plan, pieces=without(plan, "usage")), number, dialect)


# --- how the bytes look -----------------------------------------------------------------------------------------------


def mapped(change: Callable[[bytes], bytes]) -> Callable[[Plan, int, Dialect], Plan]:
    def apply(plan: Plan, number: int, dialect: Dialect) -> Plan:
        return replace(plan, pieces=tuple(replace(piece, data=change(piece.data)) for piece in plan.pieces))

    return apply


def no_space(data: bytes) -> bytes:
    """At the head of each line, and nowhere inside it."""
    return re.sub(rb"^([a-z]+:) ", rb"\1", data, flags=re.MULTILINE)


def multiline(data: bytes) -> bytes:
    """A JSON object over two `data:` lines, cut behind a comma that stands between two members."""
    found = re.search(rb'["\]}\d](,)"', data)
    if found is None or not data.startswith((b"data:", b"event:")):
        return data
    return data[: found.end(1)] + b"\ndata: " + data[found.end(1) :]


def bom(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, pieces=(Piece(b"\xef\xbb\xbf", "start"), *plan.pieces))


def bytewise(plan: Plan, number: int, dialect: Dialect) -> Plan:
    """A pause stands before the first byte of a piece, as it stood before the piece."""
    cut = (
        replace(piece, data=piece.data[k : k + 1], after_s=0.0 if k else piece.after_s)
        for piece in plan.pieces
        for k in range(len(piece.data))
    )
    return replace(plan, pieces=tuple(cut))


def one_write(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, pieces=(Piece(plan.body, "finish"),))


def gzipped(plan: Plan, number: int, dialect: Dialect) -> Plan:
    body = gzip.compress(plan.body)
    return replace(plan, pieces=(Piece(body, "finish"),), headers=(*plan.headers, ("content-encoding", "gzip")))


def plain_type(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, content_type="text/plain; charset=utf-8")


def giant(plan: Plan, number: int, dialect: Dialect) -> Plan:
    """The first piece of content says a megabyte more."""
    done = False

    def edit(chunk: dict[str, Any], piece: Piece) -> Any:
        nonlocal done
        if not done and piece.kind == "content" and lengthen(chunk):
            done = True
        return chunk

    return edited(plan, edit)


def lengthen(value: Any) -> bool:
    """Make the first text in there a giant."""
    for key in ("content", "text", "delta", "thinking", "response"):
        if isinstance(value, dict) and isinstance(value.get(key), str):
            value[key] += "x" * GIANT_BYTES
            return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(lengthen(each) for each in inner if isinstance(each, dict | list))


def endless(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, pieces=without(plan, "finish", "usage", "terminator"), repeats=True)


def pings(plan: Plan, number: int, dialect: Dialect) -> Plan:
    """Nothing but signs of life, behind N pieces of content, which are said once."""
    before = (replace(piece, kind="start") for piece in kept(plan, number))
    ping = Piece(dialect.heartbeat or b"\n", "content", 0.05)
    return replace(plan, pieces=(*before, ping), repeats=True)


# --- fields that nobody knows, and fields that are missing ------------------------------------------------------------


def left_out(*names: str) -> Callable[[Plan, int, Dialect], Plan]:
    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(inner) for key, inner in value.items() if key not in names}
        return [strip(inner) for inner in value] if isinstance(value, list) else value

    return lambda plan, number, dialect: edited(plan, lambda chunk, piece: strip(chunk))


def unknown_fields(plan: Plan, number: int, dialect: Dialect) -> Plan:
    """Last, with white space and an escape that a parser would not write again."""

    def change(data: bytes) -> bytes:
        head, brace, end = data.rpartition(b"}")
        return head + b',"penstock_probe" : {"a":[1,  2.50],"u":"\\u00e9"}' + brace + end if brace else data

    return mapped(change)(plan, number, dialect)


def bad_arguments(plan: Plan, number: int, dialect: Dialect) -> Plan:
    """The last piece of each call's arguments is left out."""

    def edit(chunk: dict[str, Any], piece: Piece) -> Any:
        for choice in chunk.get("choices") or ():
            for call in (choice.get("delta") or {}).get("tool_calls") or ():
                function = call.get("function") or {}
                if isinstance(function.get("arguments"), str):
                    function["arguments"] = function["arguments"].replace("}", "")
        delta = chunk.get("delta")
        if isinstance(delta, dict) and isinstance(delta.get("partial_json"), str):
            delta["partial_json"] = delta["partial_json"].replace("}", "")
        elif isinstance(delta, str) and chunk.get("type") == "response.function_call_arguments.delta":
            chunk["delta"] = delta.replace("}", "")
        return chunk

    return edited(plan, edit)
