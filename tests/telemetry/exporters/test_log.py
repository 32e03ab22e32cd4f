from __future__ import annotations

import io
from datetime import UTC

import msgspec
import pytest

from penstock.telemetry.exporters.log import LogExporter, pretty_line
from penstock.telemetry.record import CallRecord, compact_line
from tests.telemetry.script import example


class Stream(io.StringIO):
    """Counts what reaches the system."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = self.flushes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)

    def flush(self) -> None:
        self.flushes += 1


def test_compact_is_one_write_per_batch() -> None:
    stream = Stream()
    exporter = LogExporter(stream, format="compact")
    exporter.export([example(), example(attempts=2)])
    exporter.close()
    assert stream.getvalue() == f"{compact_line(example())}\n{compact_line(example(attempts=2))}\n"
    assert (stream.writes, stream.flushes) == (1, 1)
    assert not stream.closed


def test_json_is_a_record_per_line() -> None:
    stream = Stream()
    records = [example(), example(model="a\nb\u2028", prompt_tokens=None)]
    LogExporter(stream, format="json").export(records)
    lines = stream.getvalue().split("\n")
    assert lines.pop() == ""
    assert [msgspec.json.decode(line, type=CallRecord) for line in lines] == records
    assert '"prompt_tokens":null' in lines[1]


def test_off_writes_nothing() -> None:
    stream = Stream()
    LogExporter(stream, format="off").export([example()])
    assert (stream.writes, stream.flushes) == (0, 0)


def test_pretty() -> None:
    assert pretty_line(example(), zone=UTC) == (
        "00:03:41 ✓ complete       Qwen3-14B                        125 → 42     tok    850.5/75.2    tok/s"
        "  ctx  15.2%  ttft   38ms  dur   1.2s  stop"
    )


def test_pretty_says_why_it_failed_and_stays_aligned() -> None:
    failed = example(outcome="upstream_error", error_type="rate_limited", finish_reason=None, model=None, attempts=3)
    line = pretty_line(failed, zone=UTC)
    assert line.startswith("00:03:41 ✗ upstream_error fast  ")
    assert line.endswith("  rate_limited  3 attempts")
    assert line.index("tok/s") == pretty_line(example(), zone=UTC).index("tok/s")


@pytest.mark.parametrize(("outcome", "color"), [("complete", 32), ("cancelled", 33), ("timeout", 31)])
def test_colour_only_when_told(outcome: str, color: int) -> None:
    record = example(outcome=outcome)
    assert f"\x1b[{color}m" in pretty_line(record, color=True)
    assert "\x1b" not in pretty_line(record)


def test_c13_no_name_can_reach_the_terminal() -> None:
    line = pretty_line(example(model="\x1b[2J\nforged", outcome="capped", error_type="\x9b31m"), zone=UTC)
    assert line.isprintable()


def test_what_the_encoding_cannot_say_is_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    LogExporter(stream, format="pretty", zone=UTC).export([example()])
    assert raw.getvalue().startswith(b"00:03:41 \\u2713 complete")
