"""Mutations of what runs beside the stream, and of what it may hold and tell: C5, C6, C11, C13."""

from __future__ import annotations

from tests.contract.mutations.mutation import Mutation

MUTATIONS = (
    # --- C5 Nothing beside the stream can hold it up ------------------------------------------------------------------
    Mutation(
        "c5-exports-in-the-stream",
        "the stream itself writes its log line, and waits for whoever reads logs",
        "telemetry/bus.py",
        "            lane.offer(record)\n",
        "            lane._exporter.export([record])\n",
        "test_c5_nothing_beside_the_stream.py::test_c5_a_log_that_nobody_reads_holds_up_no_stream",
    ),
    Mutation(
        "c5-waits-for-the-store",
        "the end of a call waits until every exporter has its record",
        "telemetry/bus.py",
        "            lane.offer(record)\n",
        "            lane.offer(record)\n"
        "            until = time.monotonic() + 30\n"
        "            while lane.state().lag and time.monotonic() < until:\n"
        "                time.sleep(0.01)\n",
        "test_c5_nothing_beside_the_stream.py::test_c5_a_store_that_another_holds_locked_holds_up_no_stream",
    ),
    Mutation(
        "c5-narration-before-each-token",
        "narration goes on beside the tokens",
        "worker/execute.py",
        "        if progress is not None and self._tokens == 0:\n",
        "        if progress is not None:\n",
        "worker/test_execute.py::test_c5_narration_comes_before_the_first_token_and_not_after_it",
    ),
    Mutation(
        "c5-narration-is-chained-before-the-tokens",
        "the tokens come when the narration has ended, which may be never",
        "worker/execute.py",
        "                async for batch in stream:\n",
        "                chained = [batch async for batch in stream]\n                for batch in chained:\n",
        "worker/test_execute.py::test_c5_no_token_waits_for_narration_that_goes_on",
    ),
    Mutation(
        "c5-narration-without-bound",
        "all that one read narrates is told, not the last of it",
        "worker/execute.py",
        "                progress = event\n",
        "                progress = event\n                out.append(self.narration(event))\n",
        "worker/test_execute.py::test_c5_a_flood_of_narration_is_bounded_and_changes_no_token",
    ),
    # --- C6 Metrics come from the stream's own end --------------------------------------------------------------------
    Mutation(
        "c6-sleeps-before-reading-metrics",
        "the record is made half a second after the end, in case more should come",
        "telemetry/recorder.py",
        "        self._tally.caller_left(error)\n",
        "        import asyncio\n\n        await asyncio.sleep(0.5)\n        self._tally.caller_left(error)\n",
        "test_c6_metrics_from_the_streams_end.py::test_c6_a_record_is_made_at_the_streams_end_and_not_later",
    ),
    Mutation(
        "c6-the-end-is-guessed",
        "the end is when somebody looked, not when it was",
        "telemetry/tally.py",
        "            self._ended_at = self._call.now()\n",
        "            self._ended_at = self._call.now() + 0.05\n",
        "test_c6_metrics_from_the_streams_end.py::test_c6_a_record_is_made_at_the_streams_end_and_not_later",
    ),
    Mutation(
        "c6-loses-usage-behind-the-finish",
        "usage that comes after the finish reason is not read",
        "dialects/openai_chat/decode.py",
        "        if isinstance(raw, dict):\n            self._reported",
        "        if isinstance(raw, dict) and not self.proved:\n            self._reported",
        "test_c6_metrics_from_the_streams_end.py::test_c6_usage_that_comes_after_the_finish_counts",
    ),
    Mutation(
        "c6-does-not-ask-for-usage",
        "usage is known where the client asked for it, and nowhere else",
        "dialects/openai_chat/request.py",
        "    ask_usage = ask_usage and head.stream and not head.include_usage\n",
        "    ask_usage = False\n",
        "test_c6_metrics_from_the_streams_end.py::test_c6_usage_that_the_client_did_not_ask_for_is_on_the_record",
    ),
    Mutation(
        "c6-unknown-is-zero",
        "tokens that nobody counted are 0",
        "telemetry/tally.py",
        "            completion_tokens=usage.output,\n",
        "            completion_tokens=usage.output or 0,\n",
        "test_c6_metrics_from_the_streams_end.py::test_c6_what_nobody_reported_is_null",
    ),
    Mutation(
        "c6-two-records-of-a-failure",
        "a call that fails before its stream is recorded twice",
        "telemetry/recorder.py",
        "            tally.failed(error)\n            self._end()\n",
        "            tally.failed(error)\n            self._end()\n            self._end()\n",
        "test_c6_metrics_from_the_streams_end.py::test_c6_every_ending_leaves_one_record",
    ),
    # --- C11 Bounded --------------------------------------------------------------------------------------------------
    Mutation(
        "c11-frames-without-bound",
        "a frame may be as large as it likes",
        "framing/base.py",
        "MAX_FRAME_BYTES = 16 * 1024 * 1024\n",
        "MAX_FRAME_BYTES = 1 << 40\n",
        "test_c11_bounded.py::test_c11_a_frame_over_the_limit_ends_the_stream",
    ),
    Mutation(
        "c11-bodies-without-bound",
        "a body that does not say its length may be as large as it likes",
        "serving/asgi.py",
        "        if size > max_bytes:\n",
        "        if False:\n",
        "test_c11_bounded.py::test_c11_a_body_over_the_limit_is_413",
    ),
    Mutation(
        "c11-heads-without-bound",
        "a request's head may go on for ever",
        "serving/connection.py",
        "        if self._fruitless_bytes > MAX_HEAD_BYTES and",
        "        if False and",
        "test_c11_bounded.py::test_c11_a_head_without_end_is_refused",
    ),
    Mutation(
        "c11-writes-though-nobody-reads",
        "what a slow reader does not read piles up behind his socket",
        "serving/connection.py",
        "        if self.flow.write_paused:\n",
        "        if False:\n",
        "test_c11_bounded.py::test_c11_a_slow_reader_slows_his_own_upstream_and_nobody_else",
    ),
    Mutation(
        "c11-reads-though-nobody-takes",
        "an upstream is read on, though its reader does not take what has come",
        "transport/connection.py",
        "        if self.unread_bytes > self.bounds.high_water_bytes and not self._paused:\n",
        "        if False:\n",
        "test_c11_bounded.py::test_c11_a_slow_reader_slows_his_own_upstream_and_nobody_else",
    ),
    Mutation(
        "c11-reads-error-bodies-to-their-end",
        "the body of an error is kept, however large",
        "policy/upstream.py",
        "        while size < MAX_ERROR_BODY_BYTES and (data := await response.read()):\n",
        "        while data := await response.read():\n",
        "test_c11_bounded.py::test_c11_an_error_body_without_end_is_read_no_further_than_it_is_of_use",
    ),
    Mutation(
        "c11-waits-through-any-preamble",
        "comments may go on for ever before a reply",
        "streams/stream.py",
        "            if size > MAX_PREAMBLE_BYTES:\n",
        "            if False:\n",
        "test_c11_bounded.py::test_c11_a_preamble_without_end_is_an_error",
    ),
    # --- C13 Nothing leaks --------------------------------------------------------------------------------------------
    Mutation(
        "c13-repeats-the-key",
        "a key that the upstream repeats in an error reaches the client",
        "policy/upstream.py",
        '    return body.replace(target.key.reveal().encode(), b"***") if target.key else body\n',
        "    return body\n",
        "test_c13_nothing_leaks.py::test_c13_no_key_prompt_or_reply_is_logged_or_kept",
    ),
    Mutation(
        "c13-logs-the-key",
        "the upstream's key is printed with each attempt",
        "policy/upstream.py",
        "        call.attempts.append(attempt)\n",
        "        call.attempts.append(attempt)\n"
        "        print(target.key.reveal() if target.key else None, flush=True)\n",
        "test_c13_nothing_leaks.py::test_c13_no_key_prompt_or_reply_is_logged_or_kept",
    ),
    Mutation(
        "c13-records-what-was-said-of-an-error",
        "the record holds the words of an error, which may be anybody's",
        "telemetry/tally.py",
        '        return "upstream_error", error.error_type\n',
        '        return "upstream_error", str(error)\n',
        "test_c13_nothing_leaks.py::test_c13_no_key_prompt_or_reply_is_logged_or_kept",
    ),
    Mutation(
        "c13-sends-the-clients-key-up",
        "an upstream of the client's dialect gets the client's own key",
        "dialects/anthropic_messages/__init__.py",
        '            "content-type": "application/json",\n',
        '            "content-type": "application/json",\n'
        '            "x-forwarded-key": client.get("x-api-key", ""),\n',
        "test_c13_nothing_leaks.py::test_c13_in_every_pair_nobodys_key_or_words_go_where_they_should_not",
    ),
    Mutation(
        "c13-keeps-connections-that-are-of-no-use",
        "the connection of a reply that did not end well is neither closed nor used again",
        "streams/stream.py",
        "            self._response.release()\n        else:\n            self._response.abort()\n",
        "            self._response.release()\n",
        "test_c13_nothing_leaks.py::test_c13_nothing_is_left_after_300_requests_of_every_ending",
    ),
)
