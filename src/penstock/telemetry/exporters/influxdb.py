"""Records as points of an InfluxDB, version 1, 2 or 3, or of whatever else takes its writes.

What the server cannot take now (it is away, overloaded, or refuses the token) is kept in a spool on disk and sent
later, in order; what it refuses for good is counted as failed, with its own words. The wait between attempts doubles,
or is what `Retry-After` says; while it lasts nothing is tried, so that a server which is down costs one attempt now and
then.

Writing a line and a request is less than any client library of InfluxDB's three versions would take
(docs/decisions/0020-own-influxdb-writer.md).
"""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import re
import ssl
import time
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode, urlsplit

from penstock.canon.errors import ConfigError
from penstock.dialects.base import retry_after_s
from penstock.telemetry.exporters.base import ExportFailed, Kept
from penstock.telemetry.line_protocol import points, printable
from penstock.telemetry.spool import Spool, records_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from penstock.telemetry.record import CallRecord

Version = Literal[1, 2, 3]
Precision = Literal["ns", "us", "ms", "s"]

#: to connect, and for each read; less than the bus waits at the end
TIMEOUT_S = 3.0
#: between attempts, doubled up to the last
FIRST_WAIT_S, LAST_WAIT_S = 1.0, 60.0
#: where nothing is kept, and what comes meanwhile is lost
LAST_WAIT_UNKEPT_S = 5.0
#: a server may ask for more patience, up to this much
MAX_RETRY_AFTER_S = 600.0
GZIP_FROM_BYTES = 1024
#: points in one request
MAX_POINTS, PROBE_POINTS = 5000, 20
MAX_ANSWER_BYTES = 16 * 1024
MAX_WORDS_CHARS = 160

#: the server is not able or willing now; 401, 403 and 404 are for its owner to mend
_LATER = frozenset({401, 403, 404, 408, 425, 429})


class _NotNow(Exception):
    """Try again later: what happened, and when if the server said so."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.why, self.after_s = why, after_s


class InfluxDBExporter:
    """`database` is the bucket of version 2. `token` of version 1 is a token or `user:password`.

    `spool` is the folder that keeps what could not be sent; None keeps nothing. Times are in seconds.
    """

    name = "influxdb"
    gather_s = 1.0

    def __init__(
        self,
        url: str,
        *,
        version: Version = 2,
        org: str | None = None,
        database: str,
        token: str | None = None,
        precision: Precision = "ns",
        spool: Path | None = None,
        spool_bytes: int = 64 * 1024 * 1024,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"`{url}` is no URL of an InfluxDB.", fix="Write http://host:8086.")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname, parts.port or (443 if self._tls else 80)
        self._place = f"{parts.hostname}:{self._port}"
        self._path = parts.path.rstrip("/") + _path(version, org, database, precision)
        self._headers = {"content-type": "text/plain; charset=utf-8", "user-agent": "penstock", **_auth(version, token)}
        self._precision = precision
        self._spool = Spool(spool, max_bytes=spool_bytes) if spool is not None else None
        self._now = now
        self._number = 0
        self._connection: http.client.HTTPConnection | None = None
        self._wait_s = FIRST_WAIT_S
        self._not_before: float | None = None
        self._deferred = self._recovered = self._refused = 0
        self._error: str | None = None  # why it waits
        self._refusal: str | None = None  # why some points were not taken

    # --- what the bus calls -------------------------------------------------------------------------------------------

    def export(self, records: list[CallRecord]) -> None:
        """Send them, or keep them. Raises `ExportFailed` for what is lost."""
        refused: list[str] = []
        for piece in self._in_pieces(records):
            self._export(piece, refused)
        if refused:
            raise ExportFailed(refused[-1], fix="See the server's own log.")

    def resume(self) -> float | None:
        """Send what was kept, if it is time. In how many seconds to call again; None: not before the next record."""
        spool = self._spool
        if spool is None or not (files := spool.files()):
            return None
        if (left := self._left_s()) > 0:
            return left
        with spool.turn() as is_ours:
            if not is_ours:
                return LAST_WAIT_S
            for path in files:
                try:
                    batch = path.read_bytes()
                except FileNotFoundError:
                    continue  # another process's turn was before ours
                try:
                    self._send(batch)
                except _NotNow as later:
                    self._wait(later)
                    return self._left_s()
                except ExportFailed as error:
                    spool.lost += records_of(path)
                    self._refusal = str(error)
                else:
                    self._recovered += records_of(path)
                spool.remove(path)
        return None

    @property
    def kept(self) -> Kept:
        spool = self._spool
        return Kept(
            now=spool.records if spool is not None else 0,
            deferred=self._deferred,
            recovered=self._recovered,
            lost=spool.lost if spool is not None else 0,
            refused=self._refused,
            error=self._error or self._refusal,
        )

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # --- sending ------------------------------------------------------------------------------------------------------

    def _export(self, records: list[CallRecord], refused: list[str]) -> None:
        batch = points(records, self._number, self._precision)
        self._number += len(records)
        if self._spool is not None and (self._left_s() > 0 or self._spool.files()):
            self._keep(batch, len(records), self._error or "What came before is still to be sent.")
            self.resume()
            return
        try:
            self._send(batch)
        except _NotNow as later:
            self._wait(later)
            self._keep(batch, len(records), later.why)
        except ExportFailed as error:
            refused.append(str(error))

    def _in_pieces(self, records: list[CallRecord]) -> Iterator[list[CallRecord]]:
        """Where nothing is kept, a server that took nothing is asked now and then, with a few records: points cost as
        much whether they are taken or not. What comes meanwhile is lost, and no work is done for it."""
        at = 0
        while at < len(records):
            size = MAX_POINTS
            if self._spool is None and self._not_before is not None:
                if self._left_s() > 0:
                    raise ExportFailed(self._error or "InfluxDB took nothing.")
                size = PROBE_POINTS
            yield records[at : at + size]
            at += size

    def _keep(self, batch: bytes, records: int, why: str) -> None:
        if self._spool is None:
            raise ExportFailed(why)
        try:
            self._spool.add(batch, records)
        except OSError as error:
            raise ExportFailed(f"{why} Nor could it be kept on disk: {error.strerror or 'an error'}.") from error
        self._deferred += records

    def _left_s(self) -> float:
        return 0.0 if self._not_before is None else max(0.0, self._not_before - self._now())

    def _wait(self, later: _NotNow) -> None:
        after_s = self._wait_s if later.after_s is None else min(later.after_s, MAX_RETRY_AFTER_S)
        if self._spool is None:
            after_s = min(after_s, LAST_WAIT_UNKEPT_S)
        self._not_before = self._now() + after_s
        self._wait_s = min(self._wait_s * 2, LAST_WAIT_S)
        self._error = later.why

    def _send(self, batch: bytes) -> None:
        """All of it. Raises `_NotNow`, or `ExportFailed` for what was refused."""
        headers = self._headers
        body = batch
        if len(batch) >= GZIP_FROM_BYTES:
            body, headers = gzip.compress(batch, 1), {**headers, "content-encoding": "gzip"}
        try:
            status, answer, answered = self._post(body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise _NotNow(f"InfluxDB at {self._place} cannot be reached: {_reason(error)}.") from error
        if status == 413:
            self._send_halves(batch)
        elif status in _LATER or status >= 500:
            raise _NotNow(f"InfluxDB at {self._place} answered {status}: {_words(answer)}", retry_after_s(answered))
        elif not 200 <= status < 300:
            said = f"InfluxDB at {self._place} refused points ({status}): {_words(answer)}"
            refused = _refused_points(answer)
            if refused is None or refused >= batch.count(b"\n"):
                raise ExportFailed(said)
            self._refused += refused
            self._refusal = said
        self._wait_s, self._not_before, self._error = FIRST_WAIT_S, None, None

    def _send_halves(self, batch: bytes) -> None:
        lines = batch.splitlines(keepends=True)  # bytes: cut at CR and LF alone, and no point holds either
        if len(lines) < 2:
            raise ExportFailed(f"InfluxDB at {self._place} takes no request as large as one point.")
        half = len(lines) // 2
        self._send(b"".join(lines[:half]))
        self._send(b"".join(lines[half:]))

    def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        is_kept = self._connection is not None
        try:
            return self._exchange(body, headers)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            if not is_kept:
                raise
            self.close()  # the server closed it meanwhile. Points written twice are the same points.
            return self._exchange(body, headers)

    def _exchange(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        if self._connection is None:
            self._connection = (
                http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
                if self._tls is None
                else http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=self._tls)
            )
        self._connection.request("POST", self._path, body, headers)
        response = self._connection.getresponse()
        answer = response.read(MAX_ANSWER_BYTES)
        if response.read(1):
            self.close()  # whatever that was
        return response.status, answer, {name.lower(): value for name, value in response.headers.items()}


def _path(version: Version, org: str | None, database: str, precision: Precision) -> str:
    match version:
        case 1:
            return "/write?" + urlencode({"db": database, "precision": {"us": "u"}.get(precision, precision)})
        case 2:
            return "/api/v2/write?" + urlencode({"org": org or "", "bucket": database, "precision": precision})
        case 3:
            word = {"ns": "nanosecond", "us": "microsecond", "ms": "millisecond", "s": "second"}[precision]
            return "/api/v3/write_lp?" + urlencode({"db": database, "precision": word})


def _auth(version: Version, token: str | None) -> dict[str, str]:
    if not token:
        return {}
    if version == 1 and ":" in token:
        return {"authorization": "Basic " + base64.b64encode(token.encode()).decode()}
    return {"authorization": f"{'Token' if version == 2 else 'Bearer'} {token}"}


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS failed").replace("_", " ").lower()
    if isinstance(error, TimeoutError):
        return "it does not answer"
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def _words(answer: bytes) -> str:
    """The server's own, in one line: the points themselves may stand in it, and are left out."""
    try:
        said = json.loads(answer)
    except ValueError:
        return "no reason given."
    if not isinstance(said, dict):
        return "no reason given."
    told = said.get("message") or said.get("error") or "no reason given"
    data = said.get("data")
    lines = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
    if lines:  # version 3
        told = f"{told}; {len(lines)} of them, the first: {lines[0].get('error_message')}"
    return f"{printable(str(told))[:MAX_WORDS_CHARS].rstrip('.')}."


def _refused_points(answer: bytes) -> int | None:
    """How many of the points were not taken while the rest was; None when that is not said."""
    if (found := re.search(rb"partial write:.*\bdropped=(\d+)", answer)) is not None:  # version 1
        return int(found[1])
    try:
        said = json.loads(answer)
    except ValueError:
        return None
    data = said.get("data") if isinstance(said, dict) and "partial write" in str(said.get("error")) else None
    return len(data) if isinstance(data, list) else None  # version 3
