"""C4: exactly one ending, the same on the wire, on the record, and never better than what the provider has proved.

Each case is one way in which real upstreams break; what a client of either dialect is owed is the same for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.simulated import ERROR_FAULTS, WORDS, at_once, check_whole, each_form
from tests.contract.simulated import Pair as AnyPair
from tests.contract.simulated import check_failed as check_told
from tests.gateways import until
from tests.upstreams import Answer, Gate, document, sse
from tests.wires import CHAT, MESSAGES, STOPPED, Pair, each_client, each_pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.clients import Client
    from tests.contract.simulated import Bench
    from tests.gateways import Gateway
    from tests.upstreams import Upstream
    from tests.wires import Said, Wire

pytestmark = pytest.mark.process

TEXTS = ["One ", "two ", "three"]


def begun(wire: Wire) -> list[bytes]:
    return [*wire.opening(), *(wire.text(piece) for piece in TEXTS)]


def check_failed(said: Said, *, text: str = "One two three") -> dict[str, Any]:
    """One error as the last frame, nothing that looks like an end, and all that had come before it."""
    assert said.text == text
    assert (said.terminators, said.stops) == (0, [])
    (error,) = said.errors
    assert said.frames[-1][1].get("error") == error
    assert error["message"]
    return error


CUTS: dict[str, Callable[[Wire], Answer]] = {
    "a clean end without a finish": lambda wire: sse(*begun(wire)),
    "a closed connection": lambda wire: sse(*begun(wire), end="cut"),
    "an unchunked body that just ends": lambda wire: Answer(begun(wire), chunked=False),
    "a cut inside a frame": lambda wire: sse(*begun(wire), wire.text("four")[:-20], end="cut"),
    "a clean end inside a frame": lambda wire: sse(*begun(wire), wire.text("four")[:-20]),
    "a cut inside the finish": lambda wire: sse(*begun(wire), wire.closing()[-2][:-12], end="cut"),
}


@each_pair
@pytest.mark.parametrize("case", CUTS)
def test_c4_a_cut_is_an_error_and_never_a_normal_end(
    case: str, pair: Pair, upstream: Upstream, gateway: Gateway
) -> None:
    upstream.answers(CUTS[case](pair.upstream))
    asked = gateway.ask(pair)
    said = asked.said()
    error = check_failed(said)
    assert "without" in error["message"] or "before" in error["message"]
    record = gateway.record(asked.request_id)
    assert (record["outcome"], record["error_type"]) == ("truncated", "truncated")
    assert record["finish_reason"] is None


@each_pair
def test_c4_a_socket_that_dies_after_three_chunks_is_an_error(pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    gate = Gate()
    upstream.answers(sse(*begun(pair.upstream), gate, end="reset"))
    asked = gateway.ask(pair)
    while TEXTS[-1].encode() not in asked.frame():
        pass
    gate.open()
    check_failed(asked.said())
    record = gateway.record(asked.request_id)
    assert (record["outcome"], record["chunks"]) == ("truncated", 3)


@each_pair
@pytest.mark.parametrize("more", ["nothing", "a terminator", "a whole ending"])
def test_c4_an_error_in_the_stream_is_passed_on_with_its_own_words_and_ends_it(
    more: str, pair: Pair, upstream: Upstream, gateway: Gateway
) -> None:
    wire = pair.upstream
    after = {"nothing": [], "a terminator": [wire.terminator], "a whole ending": wire.closing()}[more]
    upstream.answers(sse(*begun(wire), wire.error("overloaded_error", "Too many cooks"), *after))
    asked = gateway.ask(pair)
    error = check_failed(asked.said())
    assert (error["type"], error["message"]) == ("overloaded_error", "Too many cooks")
    record = gateway.record(asked.request_id)
    assert (record["outcome"], record["error_type"]) == ("upstream_error", "streamed_error")


@each_client
def test_c4_an_error_of_the_same_dialect_passes_byte_for_byte(wire: Wire, upstream: Upstream, gateway: Gateway) -> None:
    error = wire.error("api_error", "Außer Betrieb").replace(b'"error":', b'"x": [1,  2], "error":', 1)
    sent = [*begun(wire), error]
    upstream.answers(sse(*sent, wire.terminator))
    assert gateway.ask(Pair(wire, wire)).body() == b"".join(sent)


@each_client
@pytest.mark.parametrize("end", ["clean", "cut"])
def test_c4_done_without_a_finish_reason_proves_nothing(
    end: Any, wire: Wire, upstream: Upstream, gateway: Gateway
) -> None:
    upstream.answers(sse(*begun(CHAT), CHAT.terminator, end=end))
    asked = gateway.ask(Pair(wire, CHAT))
    check_failed(asked.said())
    assert gateway.record(asked.request_id)["outcome"] == "truncated"


def test_c4_a_stop_reason_without_message_stop_proves_nothing(upstream: Upstream, gateway: Gateway) -> None:
    """Translated, the reason is held back until it is proved. To a client of the same dialect it has passed already."""
    upstream.answers(sse(*begun(MESSAGES), *MESSAGES.closing()[:-1]))
    asked = gateway.ask(Pair(CHAT, MESSAGES))
    check_failed(asked.said())
    assert gateway.record(asked.request_id)["outcome"] == "truncated"

    asked = gateway.ask(Pair(MESSAGES, MESSAGES))
    said = asked.said()
    assert (said.terminators, len(said.errors)) == (0, 1)
    assert gateway.record(asked.request_id)["outcome"] == "truncated"


@each_pair
def test_c4_only_the_providers_own_end_is_complete(pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    upstream.answers(sse(*begun(pair.upstream), *pair.upstream.closing()))
    asked = gateway.ask(pair)
    said = asked.said()
    assert (said.text, said.terminators, said.errors) == ("One two three", 1, [])
    assert said.stops == [STOPPED[pair.client.name]]
    record = gateway.record(asked.request_id)
    assert (record["outcome"], record["finish_reason"], record["error_type"]) == ("complete", "stop", None)


@each_pair
@pytest.mark.parametrize("end", ["clean", "cut", "reset"])
def test_c4_what_happens_to_the_socket_after_the_proof_changes_nothing(
    end: Any, pair: Pair, upstream: Upstream, gateway: Gateway
) -> None:
    upstream.answers(sse(*begun(pair.upstream), *pair.upstream.closing(), 0.02, end=end))
    said = gateway.ask(pair).said()
    assert (said.text, said.terminators, said.errors) == ("One two three", 1, [])


@each_pair
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_c4_a_status_is_the_upstreams_own(stream: bool, pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    body = pair.upstream.error_body("api_error", "The boiler burst")
    upstream.answers(document(body, status=500))
    asked = gateway.ask(pair, stream=stream)
    said = asked.said()
    assert asked.status == 500
    (error,) = said.errors
    assert (error["type"], error["message"]) == ("api_error", "The boiler burst")
    record = gateway.record(asked.request_id)
    assert (record["outcome"], record["error_type"], record["http_status"]) == ("upstream_error", "server_fault", 500)


@each_pair
@pytest.mark.parametrize("end", ["clean", "cut", "reset"])
def test_c4_an_empty_reply_is_no_success(end: Any, pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    upstream.answers(sse(end=end))
    asked = gateway.ask(pair)
    assert asked.status == 502
    assert len(asked.said().errors) == 1
    assert gateway.record(asked.request_id)["outcome"] in ("truncated", "upstream_error")


@each_pair
def test_c4_a_cut_document_is_an_error(pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    upstream.answers(Answer((pair.upstream.document()[:-30],), content_type="application/json", end="cut"))
    asked = gateway.ask(pair, stream=False)
    assert asked.status == 502
    assert len(asked.said().errors) == 1
    assert gateway.record(asked.request_id)["outcome"] in ("truncated", "upstream_error")


@each_pair
@pytest.mark.parametrize("case", ["cut", "error"])
def test_c4_a_stream_that_fails_is_no_document(case: str, pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    """Who asked for a document gets a whole one, or a status."""
    wire = pair.upstream
    ending = [] if case == "cut" else [wire.error("overloaded_error", "Too many cooks")]
    upstream.answers(sse(*begun(wire), *ending))
    asked = gateway.ask(pair, stream=False)
    assert asked.status >= 500
    (error,) = asked.said().errors
    assert "Too many cooks" in error["message"] or case == "cut"
    expected = "truncated" if case == "cut" else "upstream_error"
    assert gateway.record(asked.request_id)["outcome"] == expected


def test_c4_records_in_the_store_and_on_the_log_agree(upstream: Upstream, gateway: Gateway) -> None:
    upstream.answers(sse(*begun(CHAT)))
    asked = gateway.ask(Pair(CHAT, CHAT))
    asked.body()
    logged = gateway.record(asked.request_id)
    (stored,) = until(lambda: [row for row in gateway.stored() if row["request_id"] == asked.request_id])
    assert {key: stored[key] for key in ("outcome", "error_type", "finish_reason", "http_status")} == {
        key: logged[key] for key in ("outcome", "error_type", "finish_reason", "http_status")
    }


# --- every form of client before every upstream -----------------------------------------------------------------------


#: how the simulator breaks off → what had been said
BROKEN = {
    "cut-after-2": WORDS[:2],
    "reset-after-2": WORDS[:2],
    "end-after-2": WORDS[:2],
    "cut-inside-2": WORDS[:1],
}


@each_form
@pytest.mark.parametrize("fault", BROKEN)
def test_c4_in_every_pair_a_cut_is_an_error_and_never_a_normal_end(fault: str, client: Client, bench: Bench) -> None:
    def check(pair: AnyPair) -> None:
        told = bench.tell(pair, fault)
        assert told.status == 200
        error = check_told(told.said, "".join(BROKEN[fault]))
        assert "without" in error or "before" in error
        record = bench.record(told.model)
        assert (record["outcome"], record["error_type"], record["finish_reason"]) == ("truncated", "truncated", None)

    at_once(check, client)


@each_form
def test_c4_in_every_pair_an_error_in_the_stream_ends_it(client: Client, bench: Bench) -> None:
    def check(pair: AnyPair) -> None:
        told = bench.tell(pair, f"{ERROR_FAULTS[pair.upstream]}-2")
        assert "It broke." in check_told(told.said, "".join(WORDS[:2]))
        record = bench.record(told.model)
        assert (record["outcome"], record["error_type"]) == ("upstream_error", "streamed_error")

    at_once(check, client)


@each_form
def test_c4_in_every_pair_only_a_proved_end_is_complete(client: Client, bench: Bench) -> None:
    """Whatever stands behind it."""

    def check(pair: AnyPair) -> None:
        for told in [bench.tell(pair, looks) for looks in ("", "double-done", "garbage")]:
            check_whole(pair, told)
            assert told.said.terminators == 1
            record = bench.record(told.model)
            assert (record["outcome"], record["finish_reason"], record["error_type"]) == ("complete", "stop", None)

    at_once(check, client)


@each_form
def test_c4_in_every_pair_a_document_that_breaks_off_is_an_error(client: Client, bench: Bench) -> None:
    def check(pair: AnyPair) -> None:
        for fault in ("cut-bytes-60", f"sse+{ERROR_FAULTS[pair.upstream]}-2"):
            told = bench.tell(pair, fault, stream=False)
            assert told.status >= 500, fault
            (error,) = told.said.errors
            assert error["message"]
            assert bench.record(told.model)["outcome"] in ("truncated", "upstream_error")

    at_once(check, client)


@each_form
def test_c4_to_every_client_a_terminator_without_a_finish_proves_nothing(client: Client, bench: Bench) -> None:
    told = bench.tell(AnyPair(client, "openai-chat"), "no-finish")
    check_told(told.said, "".join(WORDS))
    assert bench.record(told.model)["outcome"] == "truncated"
