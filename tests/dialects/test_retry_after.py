"""How long an upstream asks to be left alone: the three ways of saying it, and what says nothing."""

from __future__ import annotations

import pytest

from penstock.dialects.base import retry_after_s

NOW = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "-7"}, 0.0),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "soon"}, None),
        # RFC 9110, 5.6.7: one form, and the two that are obsolete and must be read
        ({"retry-after": "Sun, 06 Nov 1994 08:50:37 GMT", "date": NOW}, 60.0),
        ({"retry-after": "Sunday, 06-Nov-94 08:50:37 GMT", "date": NOW}, 60.0),
        ({"retry-after": "Sun Nov  6 08:50:37 1994", "date": "Sun Nov  6 08:49:37 1994"}, 60.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:07 GMT", "date": NOW}, 0.0),
        # whose clock would it be by?
        ({"retry-after": "Sun, 06 Nov 1994 08:50:37 GMT"}, None),
        ({"retry-after": "Sun, 06 Nov 1994 08:50:37 GMT", "date": "today"}, None),
        ({"retry-after": "Sun, 99 Nov 1994 08:50:37 GMT", "date": NOW}, None),
        ({"retry-after": "Sun, 06 Nov 99999999999999 08:50:37 GMT", "date": NOW}, None),
        ({"retry-after": "x" * 60_000, "date": NOW}, None),
        ({"retry-after": "7" * 60_000, "date": NOW}, None),
    ],
)
def test_what_is_asked(headers: dict[str, str], seconds: float | None):
    assert retry_after_s(headers) == seconds
