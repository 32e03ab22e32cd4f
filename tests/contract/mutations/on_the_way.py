"""Mutations of what happens while a stream flows: C1, C2, C3, C10, C12."""

from __future__ import annotations

from tests.contract.mutations.mutation import Mutation

MUTATIONS = (
    # --- C1 One execution ---------------------------------------------------------------------------------------------
    Mutation(
        "c1-runs-twice",
        "each request is sent upstream twice, and the first answer thrown away",
        "policy/upstream.py",
        "            response = await clocks.guard(",
        "            (await self._transport.open(request)).abort()\n            response = await clocks.guard(",
        "test_c1_one_execution.py::test_c1_one_request_is_one_execution",
    ),
    Mutation(
        "c1-sends-again-when-there-was-no-answer",
        "a connection that dies without an answer is taken for one that never saw the request",
        "transport/http1.py",
        "        except StaleConnection:\n",
        "        except (StaleConnection, ConnectError):\n",
        "test_c1_one_execution.py::test_c1_an_upstream_that_dies_without_an_answer_is_not_asked_again",
    ),
    Mutation(
        "c1-kept-connections-count-as-stale",
        "a kept connection that dies is always taken for one that had been closed before",
        "transport/connection.py",
        " or self._fruitless_bytes or not self._is_unseen:",
        " or self._fruitless_bytes:",
        "test_c1_one_execution.py::test_c1_nor_when_it_dies_on_a_connection_that_was_kept",
    ),
    Mutation(
        "c1-attempts-are-not-counted",
        "the record knows of no attempt",
        "policy/upstream.py",
        "        call.attempts.append(attempt)\n",
        "",
        "test_c1_one_execution.py::test_c1_every_pair_executes_as_often_as_its_record_says",
    ),
    # --- C2 At once ---------------------------------------------------------------------------------------------------
    Mutation(
        "c2-sleeps-before-each-write",
        "25 ms pass before each write, as in one gateway that we measured",
        "serving/route.py",
        "                    data = write(batch)\n",
        "                    data = write(batch)\n                    await asyncio.sleep(0.025)\n",
        "test_c2_at_once.py::test_c2_no_time_passes_in_between",
    ),
    Mutation(
        "c2-holds-one-frame-back",
        "what passes as it is leaves with the read after its own",
        "serving/writers.py",
        "            return frames[0].raw if len(frames) == 1 else batch.raw\n",
        "            held, self._held = getattr(self, '_held', b''), batch.raw\n            return held\n",
        "test_c2_at_once.py::test_c2_each_frame_reaches_the_client_before_the_next_is_sent",
    ),
    Mutation(
        "c2-translates-in-portions",
        "a translation waits until it has a kilobyte",
        "serving/writers.py",
        "        written = self._encoder.encode(batch.events)\n",
        "        self._held = getattr(self, '_held', b'') + self._encoder.encode(batch.events)\n"
        "        if len(self._held) < 1024 and not batch.is_last:\n"
        "            return b''\n"
        "        written, self._held = self._held, b''\n",
        "test_c2_at_once.py::test_c2_every_pair_hears_each_word_before_the_next_is_sent",
    ),
    Mutation(
        "c2-headers-leave-at-once",
        "the head leaves before the upstream has said anything",
        "serving/route.py",
        "        connection=connection_of(scope),\n    )\n",
        "        connection=connection_of(scope),\n    )\n" + '    down.aside(b": early\\n\\n")\n',
        "test_c2_at_once.py::test_c2_headers_leave_with_the_first_event_and_not_before",
    ),
    # --- C3 Whole and in order ----------------------------------------------------------------------------------------
    Mutation(
        "c3-forgets-half-a-frame",
        "what a read leaves of a frame is lost with the next one",
        "framing/sse.py",
        "        self._held = [rest] if rest else []\n",
        "        self._held = []\n",
        "test_c3_whole_and_in_order.py::test_c3_all_deltas_once_and_in_order",
    ),
    Mutation(
        "c3-forgets-half-a-line",
        "a line of Ollama's that comes in two reads loses its first half",
        "framing/ndjson.py",
        'b"%b%b\\n" % (b"".join(self._held), line) if self._held else line + b"\\n"',
        'line + b"\\n"',
        "test_c3_whole_and_in_order.py::test_c3_every_upstream_may_cut_its_bytes_anywhere",
    ),
    Mutation(
        "c3-folds-what-one-read-brings",
        "many deltas in one read are said as one",
        "serving/writers.py",
        "        written = self._encoder.encode(batch.events)\n",
        "        from penstock.canon.events import Delta\n\n"
        "        text = ''.join(event.text for event in batch.events if type(event) is Delta)\n"
        "        i = next((event.i for event in batch.events if type(event) is Delta), 0)\n"
        "        first = next((k for k, e in enumerate(batch.events) if type(e) is Delta), len(batch.events))\n"
        "        rest = [event for event in batch.events[first:] if type(event) is not Delta]\n"
        "        said = [Delta(i, text)] if text else []\n"
        "        written = self._encoder.encode([*batch.events[:first], *said, *rest])\n",
        "test_c3_whole_and_in_order.py::test_c3_each_delta_is_a_delta_of_its_own",
    ),
    Mutation(
        "c3-says-thoughts-twice",
        "a thought of a chat stream is said twice",
        "dialects/openai_chat/decode.py",
        '            self._piece("reasoning", thought, events)\n',
        '            for _ in range(2):\n                self._piece("reasoning", thought, events)\n',
        "test_c3_whole_and_in_order.py::test_c3_every_pair_is_told_everything_once",
    ),
    Mutation(
        "c3-says-nothing-but-arguments",
        "text is not said to a client of Responses until its item is done",
        "dialects/openai_responses/encode.py",
        "                item = self._items.get(event.i)\n                if item is not None:\n",
        "                item = self._items.get(event.i)\n"
        "                if item is not None and item.kind != 'text':\n",
        "test_c3_whole_and_in_order.py::test_c3_every_pair_is_told_everything_once",
    ),
    Mutation(
        "c3-lends-a-connection-twice",
        "a kept connection is lent to a second call while the first still uses it",
        "transport/pool.py",
        "            connection = self._idle.pop()\n            if connection.is_closed:\n",
        "            connection = self._idle[-1]\n"
        "            if connection.is_closed:\n"
        "                self._idle.pop()\n",
        "test_c3_whole_and_in_order.py::test_c3_streams_side_by_side_are_not_mixed",
    ),
    Mutation(
        "c3-lends-what-has-something-to-read",
        "a kept connection is lent although an answer that nobody asked for waits in it",
        "transport/connection.py",
        "        return self._poll is None or not self._poll.poll(0)\n",
        "        return True\n",
        "transport/test_pool.py::test_c3_an_answer_that_came_before_its_request_is_nobodys",
    ),
    # --- C10 Verbatim -------------------------------------------------------------------------------------------------
    Mutation(
        "c10-writes-frames-anew",
        "a stream of the client's own dialect is decoded and encoded: fields that we do not know are lost",
        "serving/route.py",
        "    if stream.dialect == dialect.name and stream.framing",
        "    if not stream.dialect and stream.framing",
        "test_c10_verbatim.py::test_c10_unknown_frames_fields_and_odd_spellings_pass",
    ),
    Mutation(
        "c10-tidies-frames",
        "white space in a field that we do not know is thought to be of no use",
        "serving/writers.py",
        "            return frames[0].raw if len(frames) == 1 else batch.raw\n",
        "            return batch.raw.replace(b',  ', b', ')\n",
        "test_c10_verbatim.py::test_c10_every_dialect_passes_byte_for_byte",
    ),
    Mutation(
        "c10-writes-requests-anew",
        "a request is parsed and written again, though nothing of it is ours to change",
        "dialects/openai_chat/request.py",
        "    if not renamed and not ask_usage:\n        return head.body\n",
        "",
        "test_c10_verbatim.py::test_c10_a_request_passes_byte_for_byte",
    ),
    Mutation(
        "c10-tells-usage-to-who-did-not-ask",
        "the usage frame that we asked for reaches a client that did not",
        "serving/writers.py",
        "mark is Mark.USAGE and not self._keep_usage",
        "mark is Mark.USAGE and not self._keep_usage and False",
        "test_c10_verbatim.py::test_c10_only_the_usage_frame_is_kept_from_who_did_not_ask",
    ),
    Mutation(
        "c10-terminates-twice",
        "a terminator is added to the upstream's own",
        "serving/writers.py",
        "            self._terminated = True\n",
        "            self._terminated = False\n",
        "test_c10_verbatim.py::test_c10_every_dialect_passes_byte_for_byte",
    ),
    Mutation(
        "c10-keeps-the-upstreams-name-of-the-model",
        "a client that asked for an alias is told another name",
        "serving/writers.py",
        "frame.raw if self._alias is None else rename_model(",
        "frame.raw if True else rename_model(",
        "test_c10_verbatim.py::test_c10_in_every_dialect_an_alias_changes_the_models_name_and_nothing_else",
    ),
    Mutation(
        "c10-renames-inside-the-text",
        "what looks like a model's name in a text is changed as well",
        "serving/writers.py",
        "    if found is None:\n        return raw\n",
        "    if found is None:\n        return raw\n"
        '    raw = raw.replace(b\'\\\\"model\\\\": \\\\"real-1\\\\"\', b"ours")\n',
        "test_c10_verbatim.py::test_c10_an_alias_changes_the_models_name_and_nothing_else",
    ),
    Mutation(
        "c10-leaves-events-nameless",
        "an event that lost its name on the way stays without one, and clients that go by names pass it over",
        "serving/writers.py",
        "            self._lacks_names = True\n",
        "            self._lacks_names = False\n",
        "serving/test_writers.py::test_c10_a_name_that_was_lost_is_the_only_thing_that_is_added",
    ),
    # --- C12 Always a stream ------------------------------------------------------------------------------------------
    Mutation(
        "c12-believes-the-content-type",
        "a document that is called a stream is read as one, and comes to nothing",
        "framing/choose.py",
        '    if said.startswith(b"{"):\n',
        '    if said.startswith(b"{") and media_type != "text/event-stream":\n',
        "test_c12_always_a_stream.py::test_c12_a_document_becomes_a_stream",
    ),
    Mutation(
        "c12-does-not-say-that-it-is-synthetic",
        "the record calls a stream that was made of a document the upstream's own",
        "telemetry/tally.py",
        "synthetic=call.stream and self._is_document,",
        "synthetic=False,",
        "test_c12_always_a_stream.py::test_c12_in_every_pair_a_document_becomes_a_stream",
    ),
    Mutation(
        "c12-does-not-tell-the-client-that-it-is-synthetic",
        "a client cannot know that its stream was made of a document",
        "serving/route.py",
        "    if call.stream and stream.is_document:\n        headers.append(SYNTHETIC)\n",
        "",
        "test_c12_always_a_stream.py::test_c12_in_every_pair_a_document_becomes_a_stream",
    ),
    Mutation(
        "c12-no-heartbeat-before-the-reply",
        "heartbeats begin with the reply, so that nothing fills the time in which the upstream thinks",
        "serving/downstream.py",
        "            self._arm(heartbeat_s)\n\n",
        "            pass\n\n",
        "test_c12_always_a_stream.py::test_c12_heartbeats_fill_the_time_in_which_the_upstream_thinks",
    ),
    Mutation(
        "c12-gives-a-stream-to-who-asked-for-a-document",
        "the frames of a stream are given as the document",
        "serving/route.py",
        "            if stream.is_document and stream.dialect == dialect.name:\n",
        "            if stream.dialect == dialect.name:\n",
        "test_c12_always_a_stream.py::test_c12_in_every_pair_a_stream_becomes_a_document",
    ),
)
