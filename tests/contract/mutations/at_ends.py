"""Mutations of how streams begin and end: C4, C7, C8, C9."""

from __future__ import annotations

from tests.contract.mutations.mutation import Mutation

MUTATIONS = (
    # --- C4 One true ending -------------------------------------------------------------------------------------------
    Mutation(
        "c4-terminator-after-an-error",
        "the dialect's last word follows an error",
        "serving/writers.py",
        "        return self._closed_line() + encoder.error(error)\n",
        "        return self._closed_line() + encoder.error(error) + self._dialect.terminator\n",
        "test_c4_one_true_ending.py::test_c4_a_cut_is_an_error_and_never_a_normal_end",
    ),
    Mutation(
        "c4-invents-a-finish",
        "a translation of a stream that broke ends as if it were whole",
        "serving/writers.py",
        "        return self._encoder.error(error)\n",
        "        from penstock.canon.events import Finish\n\n"
        "        return self._encoder.error(error) + self._encoder.encode([Finish('stop', None, None)])\n",
        "test_c4_one_true_ending.py::test_c4_in_every_pair_a_cut_is_an_error_and_never_a_normal_end",
    ),
    Mutation(
        "c4-eof-proves-the-end",
        "a chat stream that just ends counts as whole",
        "dialects/openai_chat/decode.py",
        "        self._closed = True\n        if not self.proved:\n",
        "        self._closed = self.proved = True\n        if not self.proved:\n",
        "test_c4_one_true_ending.py::test_c4_a_cut_is_an_error_and_never_a_normal_end",
    ),
    Mutation(
        "c4-done-proves-the-end",
        "`[DONE]` without a finish reason counts as whole",
        "dialects/openai_chat/decode.py",
        "            self.done = True\n            return Mark.TERMINATOR\n",
        "            self.done = self.proved = True\n            return Mark.TERMINATOR\n",
        "test_c4_one_true_ending.py::test_c4_done_without_a_finish_reason_proves_nothing",
    ),
    Mutation(
        "c4-eof-proves-the-end-of-ollamas",
        "lines that just end count as a whole reply",
        "dialects/ollama/decode.py",
        "        if not self.proved:\n",
        "        if not self.proved and not self._started:\n",
        "test_c4_one_true_ending.py::test_c4_in_every_pair_a_cut_is_an_error_and_never_a_normal_end",
    ),
    Mutation(
        "c4-goes-on-after-an-error",
        "what stands behind an error in the stream passes as well",
        "streams/stream.py",
        "                del batch.frames[number + 1 :]\n",
        "",
        "test_c4_one_true_ending.py::test_c4_an_error_of_the_same_dialect_passes_byte_for_byte",
    ),
    Mutation(
        "c4-the-record-is-kinder-than-the-wire",
        "a stream that was cut is complete on its record",
        "telemetry/tally.py",
        '        return "truncated", error.error_type\n',
        '        return "complete", error.error_type\n',
        "test_c4_one_true_ending.py::test_c4_a_cut_is_an_error_and_never_a_normal_end",
    ),
    # --- C7 Gone is cancelled -----------------------------------------------------------------------------------------
    Mutation(
        "c7-does-not-notice-that-the-client-left",
        "nobody asks to be told that the client has gone",
        "serving/route.py",
        "        connection.when_gone(has_gone)\n",
        "        pass\n",
        "test_c7_gone_is_cancelled.py::test_c7_in_the_middle_of_a_stream",
    ),
    Mutation(
        "c7-leaves-the-upstream-open",
        "the upstream's connection is not closed when a reply is left in its middle",
        "streams/stream.py",
        "            self._response.release()\n"
        "        else:\n            self.unread_bytes += self._response.abort()\n",
        "            self._response.release()\n        else:\n            self._response.release()\n",
        "test_c7_gone_is_cancelled.py::test_c7_every_client_that_leaves_takes_its_upstream_with_it",
    ),
    Mutation(
        "c7-documents-run-on",
        "only a stream is cancelled when its client leaves",
        "serving/route.py",
        "        if not call.sent.is_whole:  #",
        "        if call.stream and not call.sent.is_whole:  #",
        "test_c7_gone_is_cancelled.py::test_c7_before_the_upstream_has_answered",
    ),
    Mutation(
        "c7-cancels-late",
        "the upstream is closed 200 ms after the client has gone",
        "serving/route.py",
        "            task.cancel()\n",
        "            asyncio.get_running_loop().call_later(0.2, task.cancel)\n",
        "test_c7_gone_is_cancelled.py::test_c7_in_the_middle_of_a_stream",
    ),
    # --- C8 Four clocks -----------------------------------------------------------------------------------------------
    Mutation(
        "c8-waits-by-the-old-timer",
        "a clock that begins while the timer stands at something later runs out when that does",
        "streams/clocks.py",
        "        if self._is_late:\n",
        "        if False:\n",
        "streams/test_clocks.py::test_c8_idle_runs_out_on_time_whatever_the_others_are",
    ),
    Mutation(
        "c8-pings-are-content",
        "whatever comes winds up the clocks of content",
        "streams/stream.py",
        "self._clocks.has_read(batch.at, batch.has_content, ",
        "self._clocks.has_read(batch.at, bool(batch.frames), ",
        "test_c8_four_clocks.py::test_c8_pings_are_no_first_content",
    ),
    Mutation(
        "c8-pings-wind-idle",
        "once there was content, whatever comes winds idle up",
        "streams/clocks.py",
        "        if has_content:\n            if self._content_at is None and",
        "        if has_content or self._content_at is not None:\n            if self._content_at is None and",
        "test_c8_four_clocks.py::test_c8_in_every_pair_each_stall_is_ended_by_its_own_clock",
    ),
    Mutation(
        "c8-no-total",
        "nothing ends a stream that never stops talking",
        "streams/clocks.py",
        "            if limits.total is not None and",
        "            if False and limits.total is not None and",
        "test_c8_four_clocks.py::test_c8_the_total_ends_what_never_stops_talking",
    ),
    Mutation(
        "c8-silence-by-another-name",
        "a stream that fell silent ends by `idle`",
        "streams/clocks.py",
        'clock, limit, left = "silence", limits.silence, ',
        'clock, limit, left = "idle", limits.silence, ',
        "test_c8_four_clocks.py::test_c8_silence_in_the_stream",
    ),
    Mutation(
        "c8-connect-waits-for-ever",
        "reaching the upstream has no limit of its own",
        "transport/http1.py",
        "            async with asyncio.timeout(connect_s) as clock:\n",
        "            async with asyncio.timeout(None) as clock:\n",
        "test_c8_four_clocks.py::test_c8_connect_has_a_clock_of_its_own",
    ),
    Mutation(
        "c8-blank-lines-are-silence",
        "bytes that tell nothing yet do not count as bytes",
        "streams/stream.py",
        "            self._clocks.has_read(at, has_content=False, proved=False)\n",
        "            pass\n",
        "test_c8_four_clocks.py::test_c8_in_every_pair_each_stall_is_ended_by_its_own_clock",
    ),
    # --- C9 Two commit points -----------------------------------------------------------------------------------------
    Mutation(
        "c9-always-200",
        "a failure before the stream is said in a stream of its own",
        "serving/route.py",
        "        if down.started:\n",
        "        if True:\n",
        "test_c9_two_commit_points.py::test_c9_a_failure_before_the_stream_is_a_status",
    ),
    Mutation(
        "c9-always-500",
        "a refusal loses its status when it is translated",
        "serving/asgi.py",
        "await respond(send, error.status, dialect.write_error",
        "await respond(send, 500, dialect.write_error",
        "test_c9_two_commit_points.py::test_c9_a_status_of_the_upstream_stays_one",
    ),
    Mutation(
        "c9-loses-retry-after",
        "who is told to come back is not told when",
        "serving/asgi.py",
        '    retry_after_s = getattr(error, "retry_after_s", None)\n',
        "    retry_after_s = None\n",
        "test_c9_two_commit_points.py::test_c9_in_every_pair_a_failure_before_the_stream_is_a_status",
    ),
    Mutation(
        "c9-asks-again-after-content",
        "a stream that fails after its first words is begun again in silence",
        "serving/route.py",
        "                error = reason_of(call, raised)\n"
        "                await down.end(writer.failed(error, _encoder(call, dialect, alias)))\n",
        "                error = reason_of(call, raised)\n"
        "                async with handler(call) as again:\n"
        "                    async for batch in again:\n"
        "                        await down.write(_writer(call, dialect, again, alias).write(batch))\n"
        "                await down.end(writer.failed(error, _encoder(call, dialect, alias)))\n",
        "test_c9_two_commit_points.py::test_c9_in_every_pair_what_fails_after_content_is_said_in_the_stream_and_not_repeated",
    ),
)
