"""What real programs ask for, in whatever dialect, can be asked of every upstream, or is refused by its name."""

from __future__ import annotations

import json

import pytest

from penstock.canon.errors import Unsupported
from penstock.dialects import DIALECTS, client_dialect, dialect
from tests.corpus import CAPTURES, Capture, captures
from tests.dialects.conversations import target_for

CLIENTS = ("anthropic-messages", "gemini", "ollama", "openai-chat", "openai-responses")

_found = [
    pytest.param(name, capture, id=f"{name}: {capture.client[:40]} {k}")
    for name in CLIENTS
    for k, capture in enumerate(captures(name))
]
_absent = pytest.param("", None, marks=pytest.mark.skip(reason=f"no captured requests at {CAPTURES}"), id="no captures")

#: what cannot be asked of a dialect at all, whoever asks
CANNOT = {"openai-completions": "completes text", "openai-responses": "no stop sequences"}


@pytest.mark.parametrize(("name", "capture"), _found or [_absent])
@pytest.mark.parametrize("upstream", sorted(DIALECTS))
def test_a_real_programs_request_can_be_asked_of_every_upstream(name: str, capture: Capture, upstream: str):
    client = client_dialect(name)
    head = client.read_head(capture.body, capture.path)
    request = client.parse_request(capture.body, capture.path)
    assert (head.model, head.stream) == (request.model, request.stream)
    try:
        made = dialect(upstream).build_request(request, target_for(upstream, model="real"))
    except Unsupported as error:
        if CANNOT.get(upstream, "never") not in error.message:
            raise
        return
    json.loads(made.body)
    assert made.url.startswith("https://up.example/")


@pytest.mark.skipif(not CAPTURES.is_dir(), reason=f"no captured requests at {CAPTURES}")
def test_every_dialect_that_programs_speak_is_captured():
    assert {name for name in CLIENTS if captures(name)} == set(CLIENTS)
