"""What a hostile, or a careless, client can send: kinds of it, each with cases, and what must come of each.

A case's `said` is bytes, and pauses in seconds. Behind it comes `LAST`, an honest request that ends the connection:
`answers` are the statuses of all the answers that must come back, and a connection that was refused does not answer
`LAST`. Whatever comes back must be whole HTTP answers and nothing else.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

HOST = b"host: 127.0.0.1\r\n"
LAST = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
MESSAGES = [{"role": "user", "content": "x"}]

#: the limits that these cases are written for, as a configuration has them
LIMITS = {"max_body": "1MiB", "header_timeout": "400ms", "body_timeout": "1s"}


@dataclass(frozen=True)
class Case:
    name: str
    said: tuple[bytes | float, ...]
    #: the statuses that come back; 1xx among them
    answers: tuple[int, ...]
    #: what the upstream must have been asked, once, by its end: None for nothing
    asks: bool = False
    #: `LAST` is sent behind it
    is_last_said: bool = True
    #: the client closes its side (`half`), or all of it (`all`), when all is said
    closes: str | None = None


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "plain", "stream": True, "messages": MESSAGES, **fields}).encode()


def post(*headers: bytes, data: bytes = b"", path: bytes = b"/v1/chat/completions", version: bytes = b"1.1") -> bytes:
    return b"POST %b HTTP/%b\r\n%b%b\r\n%b" % (path, version, HOST, b"".join(line + b"\r\n" for line in headers), data)


def length(data: bytes) -> bytes:
    return b"content-length: %d" % len(data)


def whole(data: bytes, *headers: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
    return post(*headers, length(data), data=data, path=path)


def chunked(data: bytes, *, size: bytes | None = None, after: bytes = b"\r\n") -> bytes:
    return b"%b\r\n%b%b0\r\n\r\n" % (size if size is not None else b"%x" % len(data), data, after)


def get(path: bytes = b"/health", *headers: bytes, method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> bytes:
    return b"%b %b %b\r\n%b%b\r\n" % (method, path, version, HOST, b"".join(line + b"\r\n" for line in headers))


def slowly(data: bytes) -> tuple[bytes | float, ...]:
    return tuple(part for byte in data for part in (bytes((byte,)), 0.05))


def bad(name: str, *said: bytes | float, status: int = 400) -> Case:
    """Refused, and nothing behind it is looked at."""
    return Case(name, said, (status,))


def fine(name: str, *said: bytes | float, status: int = 200, asks: bool = True) -> Case:
    """Answered, and so is what comes behind it."""
    return Case(name, said, (status, 200), asks)


B = body()
TE = b"transfer-encoding: chunked"
NO_BODY = b"0\r\n\r\n"
DEEP = 100_000
HUGE = b"9" * 100_000


def raw(members: bytes, model: bytes = b"plain") -> bytes:
    """A body with members that no encoder writes."""
    return b'{"model":"%b","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"x"}]%b}' % (
        model,
        members,
    )


KINDS: dict[str, list[Case]] = {
    "a length and chunks": [
        bad("length first", post(length(B), TE, data=NO_BODY + HEALTH)),
        bad("chunks first", post(TE, b"content-length: 4", data=chunked(B) + HEALTH)),
    ],
    "lengths that are none": [
        bad("two", post(b"content-length: 5", length(B), data=B + HEALTH)),
        bad("twice the same", post(length(B), length(B), data=B)),
        bad("a list", post(b"content-length: 5, 5", data=b"hello" + HEALTH)),
        bad("a sign", post(b"content-length: +%d" % len(B), data=B)),
        bad("negative", post(b"content-length: -1", data=B)),
        bad("hexadecimal", post(b"content-length: 0x10", data=B)),
        bad("over 64 bits", post(b"content-length: 18446744073709551617", data=B)),
        bad("empty", post(b"content-length:", data=B)),
    ],
    "obscured transfer codings": [
        bad("another word", post(b"transfer-encoding: xchunked", data=chunked(B)), status=501),
        bad("identity", post(b"transfer-encoding: identity", length(B), data=B)),
        bad("gzip before", post(b"transfer-encoding: gzip, chunked", data=chunked(B)), status=501),
        bad("chunked is not last", post(b"transfer-encoding: chunked, identity", data=chunked(B) + HEALTH)),
        bad("said twice", post(TE, b"transfer-encoding: identity", data=chunked(B) + HEALTH)),
        bad("quoted", post(b'transfer-encoding: "chunked"', data=chunked(B)), status=501),
        bad("a vertical tab", post(b"transfer-encoding: \x0bchunked", data=chunked(B))),
        bad("a NUL", post(TE + b"\x00", data=chunked(B))),
        bad("folded", post(b"transfer-encoding:\r\n chunked", data=chunked(B))),
        fine("a tab", post(b"transfer-encoding:\tchunked", data=chunked(B))),
        fine("an underscore makes it another header", post(b"transfer_encoding: chunked", length(B), data=B)),
        Case("in HTTP/1.0 it ends the connection", (post(TE, data=chunked(B) + HEALTH, version=b"1.0"),), (200,), True),
    ],
    "line ends that are none": [
        bad("LF everywhere", post(length(B)).replace(b"\r\n", b"\n") + B),
        bad("LF after one header", post(b"x: y\n" + TE, data=chunked(B))),
        bad("CR after one header", post(b"x: y\r" + TE, data=chunked(B))),
        bad("LF in chunks", post(TE, data=chunked(B).replace(b"\r\n", b"\n") + HEALTH)),
    ],
    "headers that are none": [
        bad("a space before the colon", post(b"transfer-encoding : chunked", data=chunked(B))),
        bad("a space before the name", post(b"x: y", b" transfer-encoding: chunked", data=chunked(B))),
        bad("a folded line", post(b"x: a\r\n b", length(B), data=B)),
        bad("no colon", post(b"garbage")),
        bad("no name", post(b": x")),
    ],
    "sizes of chunks that are none": [
        bad("negative", post(TE, data=chunked(B, size=b"-1"))),
        bad("0x", post(TE, data=chunked(b"hello", size=b"0x5"))),
        bad("over 64 bits", post(TE, data=chunked(b"hello", size=b"f" * 17))),
        bad("a space behind", post(TE, data=chunked(B, size=b"%x " % len(B)))),
        bad("no number", post(TE, data=b"5\r\nhello\r\nzz\r\n")),
        bad("more than it says", post(TE, data=chunked(B, after=b"XX"))),
        bad("less than it says", post(TE, data=chunked(B, size=b"%x" % (len(B) + 9)))),
    ],
    "extensions of chunks": [
        fine("some", post(TE, data=chunked(B, size=b'%x;a=b;c="d"' % len(B)))),
        bad("that end in LF", post(TE, data=chunked(B, size=b"%x;a\n" % len(B)) + HEALTH)),
        bad("of 70 KiB", post(TE, data=b"2;" + b"x" * 70_000, path=b"/v1/messages"), status=431),
    ],
    "trailers": [
        fine("that would be headers", post(TE, data=chunked(B)[:-2] + b"openai-beta: smuggled\r\nhost: evil\r\n\r\n")),
        bad("that would be a length", post(TE, data=chunked(B)[:-2] + b"content-length: 3\r\n\r\n" + HEALTH)),
        Case("without end", (post(TE, data=b"2\r\n{}\r\n0\r\n" + b"x: 1\r\n" * 50_000),), (431,), is_last_said=False),
    ],
    "a head that is too long": [
        bad("one header", get(b"/health", b"x: " + b"a" * 70_000), status=431),
        bad("one header without end", b"GET /health HTTP/1.1\r\nx: " + b"a" * 300_000, status=431),
        bad("the path", get(b"/" + b"a" * 70_000), status=431),
        Case("a path of 60 kB is only unknown", (get(b"/" + b"a" * 60_000),), (404,)),
    ],
    "too many headers": [
        bad("501", get(b"/health", *[b"x-%d: y" % k for k in range(501)]), status=431),
        bad("9,000", get(b"/health", *[b"x-%d: y" % k for k in range(9000)]), status=431),
        fine("400", get(b"/health", *[b"x-%d: y" % k for k in range(400)]), asks=False),
    ],
    "a body over the limit": [
        Case("declared", (post(b"content-length: 999999999999", data=B),), (413,)),
        Case("in chunks", (post(TE, data=(b"40000\r\n%b\r\n" % (b"x" * 0x40000)) * 6 + NO_BODY),), (413,)),
    ],
    "a head that does not end": [
        Case("nothing at all", (0.1,), (), is_last_said=False),
        Case("only line ends", (b"\r\n\r\n",), (408,), is_last_said=False),
        Case("half a head", (b"GET /health HT",), (408,), is_last_said=False),
        Case("a byte now and then", slowly(get()), (408,)),
        Case("after an answer", (HEALTH, 0.05, b"GET /hea"), (200, 408), is_last_said=False),
    ],
    "a body that does not end": [
        Case("nothing of it", (post(length(B)),), (408,), is_last_said=False),
        Case("a byte now and then", (post(length(B)), *slowly(B)), (408,)),
        Case("chunks of a byte", (post(TE), *(b"1\r\n{\r\n", 0.05) * 60), (408,)),
        Case("a promise to send it", (post(length(B), b"expect: 100-continue"),), (100, 408), is_last_said=False),
        Case("a chunk of 2^63", (post(TE, data=b"7fffffffffffffff\r\nhello"),), (408,), is_last_said=False),
    ],
    "requests before their answers": [
        Case("ten", (HEALTH * 10,), (200,) * 11),
        Case("one that streams before others", (whole(B) + HEALTH + get(b"/nowhere/v1"),), (200, 200, 404), True),
        Case("a hundred are too many", (HEALTH * 100,), (200,) * 17),
        Case("one that is none behind one that streams", (whole(B) + b"\x16\x03\x01garbage\r\n\r\n",), (200,), True),
        Case("a body that is none behind one that streams", (whole(B) + post(TE, data=b"zz\r\n"),), (200,), True),
        Case("behind the last", (get(b"/health", b"connection: close") + HEALTH,), (200,)),
    ],
    "a side that is closed": [
        Case("before a word", (b"",), (), is_last_said=False, closes="half"),
        Case("in the head", (b"GET /hea",), (), is_last_said=False, closes="half"),
        Case("in the body", (post(length(B), data=B[:-9]),), (), is_last_said=False, closes="half"),
        Case("in the body, and all of it", (post(length(B), data=B[:-9]), 0.02), (), is_last_said=False, closes="all"),
        Case("in a chunk, and all of it", (post(TE, data=b"ff\r\nhello"), 0.02), (), is_last_said=False, closes="all"),
    ],
    "NUL bytes": [
        bad("in the path", get(b"/v1\x00/models")),
        bad("in a header", get(b"/health", b"x: a\x00b")),
        bad("in the method", get(method=b"GE\x00T")),
        Case("as %00 in the path", (get(b"/nowhere%00/models"),), (404,)),
        fine("in the model's name", whole(body(model="plain\x00\r\nx: y"))),
    ],
    "bytes that are no UTF-8": [
        bad("in the path", get(b"/v1/\xff\xfe")),
        bad("letters in the path", get("/v1/modèles".encode())),
        Case("as %ff in the path", (get(b"/nowhere/%ff%fe%ed%a0%80"),), (404,)),
        fine("in a header", whole(B, b"openai-beta: \xff\xfe\x80")),
        fine("in the body", whole(raw(b',"x":"\xff"', b"other")), status=400, asks=False),
        fine("in the body, which passes as it is", whole(raw(b',"x":"\xff"'))),
        fine("UTF-16", whole(B.decode().encode("utf-16")), status=400, asks=False),
        fine("compressed", whole(b"\x1f\x8b\x08\x00" + B, b"content-encoding: gzip"), status=400, asks=False),
    ],
    "targets of other forms": [
        fine("absolute", get(b"http://evil.example/health"), asks=False),
        bad("absolute and wrong", get(b"http://[::1/health")),
        bad("absolute, with a password", get(b"http://u:p@evil.example:99999/health")),
        bad("an authority", get(b"evil.example:80")),
        Case("an asterisk", (get(b"*", method=b"OPTIONS"),), (404,)),
        Case("out of the root", (get(b"/v1/../../etc/passwd"),), (404,)),
    ],
    "methods of others": [
        bad("CONNECT", get(b"evil.example:443", method=b"CONNECT") + HEALTH, status=405),
        Case("TRACE", (get(b"/", method=b"TRACE"),), (405,)),
        bad("one that nobody knows", get(method=b"FETCH")),
        bad("in small letters", get(method=b"get")),
    ],
    "versions of others": [
        Case("0.9", (b"GET /health\r\n",), (408,), is_last_said=False),
        bad("0.9 with an empty line", b"GET /health\r\n\r\n", status=505),
        bad("2.0", get(version=b"HTTP/2.0"), status=505),
        bad("1.2", get(version=b"HTTP/1.2")),
        bad("9.9", get(version=b"HTTP/9.9")),
        bad("of another protocol", get(version=b"XTTP/1.1")),
    ],
    "the beginning of HTTP/2": [
        bad("with its settings", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    ],
    "other protocols": [
        bad("TLS", bytes.fromhex("16030100c8010000c403034f4a") + b"\x00" * 180),
        bad("SSLv2", b"\x80\x2e\x01\x00\x02\x00\x15"),
        bad("SSH", b"SSH-2.0-OpenSSH_9.0\r\n"),
        bad("Redis", b"*1\r\n$4\r\nPING\r\n"),
        bad("SMTP", b"EHLO evil.example\r\n"),
    ],
    "Expect": [
        Case("100-continue, with its body", (whole(B, b"expect: 100-continue"),), (100, 200, 200), True),
        Case("and its body later", (post(length(B), b"expect: 100-continue"), 0.1, B), (100, 200, 200), True),
        fine("something else", whole(B, b"expect: 200-ok")),
        Case("where nothing is read", (get(b"/health", b"expect: 100-continue"),), (200, 200)),
    ],
    "upgrades": [
        fine("to h2c, with a body", whole(B, b"connection: upgrade, http2-settings", b"upgrade: h2c")),
        fine("to h2c, in chunks", post(TE, b"connection: upgrade", b"upgrade: h2c", data=chunked(B))),
        fine("to h2c, without a body", get(b"/health", b"connection: upgrade", b"upgrade: h2c"), asks=False),
        fine("to a WebSocket", get(b"/health", b"connection: upgrade", b"upgrade: websocket"), asks=False),
        bad("with two lengths", post(b"upgrade: h2c", b"connection: upgrade", length(B), TE, data=chunked(B))),
    ],
    "hosts": [
        bad("none", b"GET /health HTTP/1.1\r\n\r\n"),
        bad("two", get(b"/health", b"host: 127.0.0.1")),
        Case("one that is not ours", (get(b"/v1/models").replace(b"127.0.0.1", b"evil.example"),), (403,)),
    ],
    "deep nesting": [
        fine("of arrays", whole(raw(b',"x":' + b"[" * DEEP + b"]" * DEEP)), status=400, asks=False),
        fine("of objects", whole(raw(b',"x":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP)), status=400, asks=False),
        fine("without an end", whole(b"[" * 900_000), status=400, asks=False),
        fine("to be translated", whole(raw(b',"x":' + b"[" * DEEP + b"]" * DEEP, b"other")), status=400, asks=False),
        fine("of 500", whole(raw(b',"x":' + b"[" * 500 + b"]" * 500))),
    ],
    "numbers": [
        fine("of 100,000 digits", whole(raw(b',"x":' + HUGE))),
        fine("of 100,000 digits, translated", whole(raw(b',"max_tokens":' + HUGE, b"other")), status=400, asks=False),
        fine("… in a member of no name", whole(raw(b',"x":' + HUGE, b"other")), status=400, asks=False),
        fine("1e999", whole(raw(b',"temperature":1e999', b"other")), status=400, asks=False),
        fine("NaN", whole(raw(b',"temperature":NaN')), status=400, asks=False),
        fine("-0.0", whole(raw(b',"temperature":-0.0', b"other"))),
    ],
    "keys twice": [
        fine("the last counts", whole(raw(b',"model":"plain","stream":true', b"nowhere"))),
        fine("20,000 of them", whole(raw(b',"x":1' * 20_000))),
    ],
    "text that is no Unicode": [
        fine("half a pair", whole(raw(b',"x":"\\ud800"', b"other")), status=400, asks=False),
        fine("half a pair in the model's name", whole(raw(b"", b"\\ud800")), status=400, asks=False),
        fine("half a pair in a key", whole(raw(b',"\\udc00":1', b"other")), status=400, asks=False),
        fine("a byte order mark", whole(b"\xef\xbb\xbf" + B), status=400, asks=False),
    ],
    "names that would be headers": [
        fine("a line end in a member's name", whole(body(model="other", max_tokens=9, **{"x\r\nx-evil: 1": 1}))),
        fine("a name of 200 kB", whole(body(model="other", max_tokens=9, **{"x" * 200_000: 1}))),
        fine("20,000 names", whole(body(model="other", max_tokens=9, **{f"x{k}": 1 for k in range(20_000)}))),
        fine("letters of others", whole(body(model="other", max_tokens=9, **{"é\u2028\x00": 1}))),
        fine("a model's name of 500 kB", whole(body(model="plain" + "x" * 500_000))),
    ],
}  # fmt: skip


def answers_in(said: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """The whole answers that these bytes are: status, headers, body. Anything else is an assertion."""
    found: list[tuple[int, dict[bytes, bytes], bytes]] = []
    while said:
        head, end, said = said.partition(b"\r\n\r\n")
        assert end, f"half a head: {head!r}"
        first, *lines = head.split(b"\r\n")
        status = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [^\r\n]*", first)
        assert status is not None, f"no status line: {first!r}"
        headers = dict(line.split(b": ", 1) for line in lines)
        content = b""
        if headers.get(b"transfer-encoding") == b"chunked":
            while True:
                size, _, said = said.partition(b"\r\n")
                number = int(size, 16)
                content, said = content + said[:number], said[number:]
                assert said.startswith(b"\r\n"), f"no end of a chunk: {said[:40]!r}"
                said = said[2:]
                if number == 0:
                    break
        else:
            number = int(headers.get(b"content-length", b"0"))
            content, said = said[:number], said[number:]
            assert len(content) == number, "half a body"
        found.append((int(status[1]), headers, content))
    return found
