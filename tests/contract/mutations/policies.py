"""Mutations of the layers round a call: asking again, asking elsewhere, limits, what targets lack."""

from __future__ import annotations

from tests.contract.mutations.mutation import Mutation

MUTATIONS = (
    # --- C1 -----------------------------------------------------------------------------------------------------------
    Mutation(
        "c1-asks-again-for-what-cannot-be-mended",
        "a refusal of the request is repeated, though it would be refused again",
        "policy/retry.py",
        "        if attempt >= self.attempts or not error.retryable or (",
        "        if attempt >= self.attempts or (",
        "test_c9_asked_again.py::test_c1_what_cannot_be_mended_is_executed_once",
    ),
    Mutation(
        "c1-one-attempt-too-many",
        "policy says how often, and one more is made",
        "policy/retry.py",
        "        if attempt >= self.attempts or not",
        "        if attempt > self.attempts or not",
        "policy/test_retry.py::test_c1_as_often_as_policy_says_and_then_the_last_failure_is_told",
    ),
    # --- C7 -----------------------------------------------------------------------------------------------------------
    Mutation(
        "c7-goes-on-asking-for-who-has-gone",
        "a client that leaves in a pause between attempts is asked for all the same",
        "policy/retry.py",
        "                await self._sleep(pause)\n",
        "                try:\n"
        "                    await self._sleep(pause)\n"
        "                except asyncio.CancelledError:\n"
        "                    pass\n",
        "test_c9_asked_again.py::test_c7_a_client_that_leaves_in_a_pause_is_asked_for_no_more",
    ),
    # --- C8 -----------------------------------------------------------------------------------------------------------
    Mutation(
        "c8-each-attempt-has-a-total-of-its-own",
        "the clock of the whole call begins anew with each attempt",
        "policy/upstream.py",
        "began=call.began, is_document",
        "began=call.now(), is_document",
        "policy/test_retry.py::test_c8_the_total_clock_spans_all_attempts",
    ),
    # --- C9 -----------------------------------------------------------------------------------------------------------
    Mutation(
        "c9-an-opening-is-a-commitment",
        "the first frame commits, content or not: an error right behind it is not asked again",
        "streams/stream.py",
        "            if not hold and batch.events and",
        "            if batch.events and",
        "test_c9_asked_again.py::test_c9_a_failure_before_content_is_not_seen",
    ),
    Mutation(
        "c9-asks-nobody-else",
        "the first target's failure is the call's",
        "policy/fallback.py",
        "                    if not queue or not may_do_better_elsewhere(error):\n",
        "                    if True:\n",
        "test_c9_asked_again.py::test_c9_the_next_target_answers_in_the_firsts_place",
    ),
    Mutation(
        "c9-the-last-failure-speaks-for-all",
        "of several failures the last is told, not the one that helps",
        "policy/fallback.py",
        "    telling = min(failures, key=_rank)\n",
        "    telling = failures[-1]\n",
        "test_c9_asked_again.py::test_c9_when_no_target_is_left_the_most_telling_status_is_told",
    ),
    Mutation(
        "c9-takes-up-what-nobody-asked-to-take-up",
        "a stream that broke is begun again though recovery is off",
        "policy/recovery.py",
        '        if mode == "off":\n            return inner\n',
        '        if mode == "off":\n            return recovered("restart", continues=continues)(inner)\n',
        "policy/test_recovery.py::test_c9_off_tells_it_as_it_is",
    ),
    Mutation(
        "c9-the-seam-is-not-marked",
        "what another attempt has said looks like the first one's words",
        "policy/recovery.py",
        "                batch.seam, self._seam = self._seam, None\n",
        "                batch.seam = None\n",
        "test_c9_recovery.py::test_c9_restart_is_one_reply_with_a_mark",
    ),
    Mutation(
        "c9-a-call-is-made-twice",
        "a reply with a tool call is begun again, and its client may do twice what it was told",
        "policy/recovery.py",
        "self._seams >= MAX_SEAMS or not told.may_be_restarted:",
        "self._seams >= MAX_SEAMS:",
        "test_c9_recovery.py::test_c9_a_call_that_has_begun_is_not_taken_up",
    ),
    # --- C11 ----------------------------------------------------------------------------------------------------------
    Mutation(
        "c11-places-without-bound",
        "there is always a place",
        "policy/limits.py",
        "        if self.places is not None and self.busy >= self.places:\n            return False\n",
        "",
        "policy/test_limits.py::test_c11_places_are_held_to_the_end_of_the_body",
    ),
    Mutation(
        "c11-a-line-without-bound",
        "any number may wait for a place",
        "policy/limits.py",
        "    if places is None or gate.busy < places or gate.waiting < queue:\n",
        "    if True:\n",
        "test_c11_limits.py::test_c11_one_call_too_many_is_429_at_once",
    ),
    Mutation(
        "c11-places-are-not-given-back",
        "a call that fails keeps its place for ever",
        "policy/limits.py",
        "        except BaseException:\n            self._leave()\n",
        "        except BaseException:\n",
        "test_c11_limits.py::test_c11_a_place_comes_back_however_the_answer_ends",
    ),
    Mutation(
        "c11-keeps-every-record-that-waits",
        "the queue of an exporter that hangs grows for ever",
        "telemetry/bus.py",
        "            if self._closing or len(queue) >= self._capacity or (",
        "            if self._closing or (",
        "telemetry/test_bus.py::test_c11_the_queue_is_bounded_and_drops_are_counted",
    ),
    # --- C12 ----------------------------------------------------------------------------------------------------------
    Mutation(
        "c12-learns-nothing",
        "what a target has shown to lack is asked for again by the next call",
        "policy/capabilities.py",
        "        if len(known.model) > MAX_NAME_CHARS:\n",
        "        if known.model:\n",
        "policy/test_capabilities.py::test_c12_a_server_that_refuses_to_stream_is_asked_without",
    ),
    Mutation(
        "c12-everybody-asks",
        "when what is known has grown old, each of many calls asks for itself",
        "policy/capabilities.py",
        "            known.is_asking = bool(self._tries)\n",
        "            known.is_asking = False\n",
        "policy/test_capabilities.py::test_c12_many_at_once_cause_one_question_and_nobody_waits",
    ),
    Mutation(
        "c12-one-document-is-enough",
        "a target that streams is taken for one that does not, because a cache answered once",
        "policy/capabilities.py",
        "MAX_DOCUMENTS = 3\n",
        "MAX_DOCUMENTS = 1\n",
        "policy/test_capabilities.py::test_c12_a_document_now_and_then_takes_nothing_from_a_server_that_streams",
    ),
    Mutation(
        "c12-asks-for-a-stream-all-the-same",
        "a target that is known not to stream is asked for one",
        "policy/capabilities.py",
        "            wants = not (STREAM in lacks or (TOOL_STREAM in lacks and _has_tools(call)))\n",
        "            pass\n",
        "gateway/test_documents.py::test_c12_a_text",
    ),
    Mutation(
        "c12-tells-too-late",
        "that a stream is made of a document is said with the document, though it was known before",
        "serving/downstream.py",
        "                    self._headers.append(SYNTHETIC)\n",
        "                    pass\n",
        "gateway/test_documents.py::test_c12_it_is_said_to_be_synthetic_as_soon_as_anything_is_said",
    ),
    Mutation(
        "c8-cuts-long-thoughts",
        "the clocks of streams run while an upstream that cannot stream thinks",
        "policy/upstream.py",
        "is_document=not call.asks_stream",
        "is_document=False",
        "policy/test_capabilities.py::test_c8_a_long_thought_of_a_server_that_cannot_stream_is_no_failure",
    ),
    # --- hostile HTTP -------------------------------------------------------------------------------------------------
    Mutation(
        "c11-waits-for-ever-for-a-head",
        "a client that never finishes its request keeps its connection",
        "serving/intake.py",
        "            self._timer = self.loop.call_later(limit_s, self._is_late)\n",
        "            pass\n",
        "gateway/test_hostile_http.py::test_c11_many_slow_clients_keep_nobody_from_asking",
    ),
    Mutation(
        "c3-refuses-into-an-answer",
        "what is no HTTP behind a request is refused in the middle of that request's answer",
        "serving/intake.py",
        "        if running is not None and not running.response_complete:\n            if last",
        "        if False:\n            if last",
        "gateway/test_hostile_http.py::test_c3_hostile_http_harms_nobody_else",
    ),
    Mutation(
        "c3-takes-trailers-for-headers",
        "a trailer that comes after a request was let in is a header of it",
        "serving/intake.py",
        "        self.headers = []  # for trailers",
        "        pass  # for trailers",
        "gateway/test_hostile_http.py::test_c3_hostile_http_harms_nobody_else",
    ),
)
