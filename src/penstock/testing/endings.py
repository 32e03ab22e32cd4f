"""Faults of how a reply begins and ends: no answer, cuts, stalls, last words, errors inside the stream. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from penstock.canon.errors import status_error_class
from penstock.testing.plan import Piece, Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.dialects.base import Dialect

# --- before the answer ------------------------------------------------------------------------------------------------


def refuse(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, has_head=False, end="reset", refuses_s=number / 1000)


def reset(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, has_head=False, end="reset")


def no_answer(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, has_head=False, end="cut")


def silent(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, has_head=False, end="hang")


def slow_head(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, before_s=plan.before_s + number / 1000)


def status(plan: Plan, number: int, dialect: Dialect) -> Plan:
    cls = status_error_class(number, None, None)
    body = dialect.write_error(cls(f"The simulator answers {number}.", status=number), None)
    headers = (("retry-after", "1"),) if number in (429, 503, 529) else ()
    return Plan((Piece(body, "finish"),), "application/json", number, headers, plan.before_s)


def html(plan: Plan, number: int, dialect: Dialect) -> Plan:
    page = b"<!DOCTYPE html><html><title>Log in</title><body>Please log in.</body></html>"
    return replace(plan, pieces=(Piece(page, "finish"),), content_type="text/html; charset=utf-8")


# --- the end ----------------------------------------------------------------------------------------------------------


def kept(plan: Plan, number: int) -> tuple[Piece, ...]:
    """Up to and with the `number`th piece of content."""
    left, kept = number, []
    for piece in plan.pieces:
        if piece.kind in ("finish", "usage", "terminator"):
            break
        if piece.kind == "content":
            if not left:
                break
            left -= 1
        kept.append(piece)
    return tuple(kept)


def cut_after(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, pieces=kept(plan, number), end="cut")


def reset_after(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, pieces=kept(plan, number), end="reset")


def end_after(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, pieces=kept(plan, number), end="clean")


def stall_after(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, pieces=kept(plan, number), end="hang")


def first_bytes(plan: Plan, number: int) -> tuple[Piece, ...]:
    kept: list[Piece] = []
    for piece in plan.pieces:
        if number <= 0:
            break
        kept.append(replace(piece, data=piece.data[:number]))
        number -= len(piece.data)
    return tuple(kept)


def cut_bytes(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, pieces=first_bytes(plan, number), end="cut")


def reset_bytes(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, pieces=first_bytes(plan, number), end="reset")


def cut_inside(plan: Plan, number: int, dialect: Dialect) -> Plan:
    """The `number`th piece of content is half there."""
    whole = kept(plan, number)
    if not whole:
        return replace(plan, end="cut")
    half = replace(whole[-1], data=whole[-1].data[: len(whole[-1].data) // 2])
    return replace(plan, pieces=(*whole[:-1], half), end="cut")


def stall_start(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, pieces=kept(plan, 0), end="hang")


# --- the last word ----------------------------------------------------------------------------------------------------


def without(plan: Plan, *kinds: str) -> tuple[Piece, ...]:
    return tuple(piece for piece in plan.pieces if piece.kind not in kinds)


def no_terminator(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, pieces=without(plan, "terminator"))


def no_finish(plan: Plan, number: int, dialect: Dialect) -> Plan:
    """The terminator without what proves the end."""
    return replace(plan, pieces=without(plan, "finish", "usage"))


def double_terminator(plan: Plan, number: int, dialect: Dialect) -> Plan:
    last = tuple(piece for piece in plan.pieces if piece.kind == "terminator")
    return replace(plan, pieces=plan.pieces + last)


def late_terminator(plan: Plan, number: int, dialect: Dialect) -> Plan:
    late = (replace(piece, after_s=number / 1000) if piece.kind == "terminator" else piece for piece in plan.pieces)
    return replace(plan, pieces=tuple(late))


def glued(plan: Plan, number: int, dialect: Dialect) -> Plan:
    """The last frames in one write."""
    body = b"".join(piece.data for piece in plan.pieces if piece.kind in ("finish", "usage", "terminator"))
    return replace(plan, pieces=(*without(plan, "finish", "usage", "terminator"), Piece(body, "finish")))


def garbage(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, pieces=(*plan.pieces, Piece(b"data: trailing\n\n{]\n\n", "terminator")))


def hang_open(plan: Plan, number: int, dialect: Dialect) -> Plan:
    return replace(plan, end="hang")


# --- errors inside the stream -----------------------------------------------------------------------------------------


def _data(payload: str, event: str | None = None) -> bytes:
    return f"{f'event: {event}' + chr(10) if event else ''}data: {payload}\n\n".encode()


_FAILED = (
    '{"type":"response.failed","response":{"id":"resp_1","object":"response","status":"failed","output":[],'
    '"error":{"code":"server_error","message":"It broke."}},"sequence_number":99}'
)
_BROKEN = (
    '{"id":"g","model":"m","choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}],'
    '"error":{"code":502,"message":"It broke."}}'
)

#: an error in the shape in which each sends it inside a stream
ERRORS: dict[str, bytes] = {
    "openai": _data('{"error":{"message":"It broke.","type":"server_error","param":null,"code":"server_error"}}'),
    "anthropic": _data('{"type":"error","error":{"type":"overloaded_error","message":"It broke."}}', "error"),
    "responses": _data(_FAILED, "response.failed"),
    "openrouter": _data(_BROKEN),
    "groq": _data('{"error":{"message":"It broke.","type":"server_error"}}', "error"),
    "vllm": _data('{"object":"error","message":"It broke.","type":"InternalServerError","code":500}')
    + b"data: [DONE]\n\n",
    "gemini": b'data: {"error":{"code":503,"message":"It broke.","status":"UNAVAILABLE"}}\r\n\r\n',
    "ollama": b'{"error":"It broke."}\n',
}


def error(shape: str) -> Callable[[Plan, int, Dialect], Plan]:
    def apply(plan: Plan, number: int, dialect: Dialect) -> Plan:
        begun = kept(plan, number)
        said = ERRORS[shape]
        if dialect.streams_as == "json-array":
            said = (b"," if begun else b"[") + said.removeprefix(b"data: ").strip() + b"]"
        return replace(plan, pieces=(*begun, Piece(said, "content")), end="clean")

    return apply
