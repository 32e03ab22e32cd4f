"""`Client`, and the functions of the package, which use one without a memory.

A client keeps connections per event loop: one set for the private loop of the sync API, one for each loop of the
program's own in which it was entered.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import TYPE_CHECKING, Any, get_args, overload

from penstock.canon.embedding import EmbedRequest
from penstock.canon.errors import ConfigError
from penstock.canon.target import Target
from penstock.catalogue.provider import nearest
from penstock.client.adapt import Adapting, adapting, is_async, provider_of
from penstock.client.conversation import Messages, read_conversation
from penstock.client.embed import ask_once, embed_all, read_texts
from penstock.client.hooks import check_plain
from penstock.client.keys import ENV_FILE
from penstock.client.loop import private_loop
from penstock.client.options import EmbedOptions, Options, ToolOptions, check_names, known_embed_options, known_options
from penstock.client.output import Shape
from penstock.client.records import Records
from penstock.client.request import build_request, read_functions, unforced
from penstock.client.session import Observers
from penstock.client.stack import Stack
from penstock.client.stream import AsyncStream, Stream
from penstock.client.target import (
    ModelSpec,
    able,
    check_key,
    continues,
    find_target,
    find_upstream,
    listed,
    listed_at,
    most_texts,
    price,
)
from penstock.client.tool_loop import Limits, ToolRun, run_loop
from penstock.dialects.embedding import embedding
from penstock.policy.models import ask_models
from penstock.policy.recovery import Mode
from penstock.policy.trace import trace_of
from penstock.streams.clocks import Timeouts
from penstock.streams.handler import Call
from penstock.telemetry.recorder import InFlight
from penstock.transport.http1 import Http1Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Self, Unpack

    from penstock.canon.embedding import Embeddings
    from penstock.canon.events import Event
    from penstock.canon.model import Model
    from penstock.canon.request import Message
    from penstock.canon.response import Response
    from penstock.client.hooks import Hooks
    from penstock.policy.retry import Retry
    from penstock.telemetry.bus import Bus
    from penstock.telemetry.exporters.base import Exporter


class Client:
    """`upstreams` maps names to base URLs or targets, `keys` names of upstreams or providers to their keys.

    `defaults` are options of every chat call, unless the call says otherwise. `env_file` is where keys are looked for
    that the environment does not have; None: nowhere. `retry` asks again what failed before its first content; None:
    each call is asked once. `recovery` takes up a reply that breaks after content: with `continue` a target that can
    goes on where it was cut, with `restart` all of it is said again; a `Progress` of the stage `recovered` marks the
    place. `keep_alives`: `KeepAlive` events are among those of a stream, for whoever passes signs of life on.

    `hooks` are called at each call's request, response and end. `telemetry` is where its calls' records go: an exporter
    (`SqliteExporter("calls.db")`), several, or a `Bus` of the program's own.

    As a context manager (sync or async) it keeps connections between calls and closes them at the end. The end delivers
    the records as well and closes exporters that it was given; without a block that is done when the program ends.
    """

    def __init__(
        self,
        *,
        upstreams: Mapping[str, str | Target] | None = None,
        keys: Mapping[str, str] | None = None,
        defaults: Options | None = None,
        env_file: str | Path | None = ENV_FILE,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        recovery: Mode = "off",
        keep_alives: bool = False,
        hooks: Hooks | None = None,
        telemetry: Exporter | Iterable[Exporter] | Bus | None = None,
    ) -> None:
        self._upstreams = dict(upstreams or {})
        self._keys = dict(keys or {})
        self._defaults = known_options(defaults or {})
        self._env_file = env_file
        if recovery not in get_args(Mode):
            raise ConfigError(f"There is no recovery `{recovery}`.", fix=nearest(str(recovery), get_args(Mode)))
        self._stack = Stack(timeouts or Timeouts(), retry, recovery, continues)
        self._kept: dict[asyncio.AbstractEventLoop, Http1Transport] = {}
        self._keep_alives = keep_alives
        self._records = Records(telemetry) if telemetry is not None else None
        self._observers = Observers(
            hooks=hooks,
            price=price,
            publish=self._records.publish if self._records is not None else None,
            ended=self._records.ended if self._records is not None else None,
            in_flight=InFlight(),
        )

    def __repr__(self) -> str:
        return f"<Client {', '.join(self._upstreams) or 'without upstreams of its own'}>"

    def __enter__(self) -> Self:
        private_loop.run(self.__aenter__())
        return self

    def __exit__(self, *exc: object) -> None:
        private_loop.run(self.aclose())

    async def __aenter__(self) -> Self:
        self._kept.setdefault(asyncio.get_running_loop(), _transport())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close this loop's connections."""
        transport = self._kept.pop(asyncio.get_running_loop(), None)
        if transport is not None:
            await transport.aclose()
        if self._records is not None and not self._kept:
            await self._records.aclose()

    def astream(self, model: ModelSpec, messages: Messages, **options: Unpack[Options]) -> AsyncStream:
        """The reply to `messages`, as it comes. Use it in `async with`.

        `model` is `provider:model`, `provider:model@upstream` (the provider's model at one of the client's upstreams),
        a `Target`, or with a `base_url` the model alone. A list of them is asked in that order: the next one where the
        one before cannot be had, and has given no content; when none is left, `NoTargetLeft` names every attempt.
        `base_url` or the client's upstreams say where, else the
        provider's own URL and key variable do. `dialect` is what that server speaks (`openai-chat` unless the provider
        says otherwise). `extra` are further fields of the request's body, by dialect. Raises a `ConfigError` or
        `RequestError` at once, an `UpstreamError` when it is entered or read.
        """
        return self._asked(model, messages, self._options(options))

    def _options(self, given: Mapping[str, Any], *more: str) -> Options:
        return known_options({**self._defaults, **given}, *more)

    def _target(self, model: str | Target, options: Options | EmbedOptions) -> Target:
        return find_target(
            model,
            upstreams=self._upstreams,
            keys=self._keys,
            base_url=options.get("base_url"),
            dialect=options.get("dialect"),
            key=options.get("key"),
            env_file=self._env_file,
        )

    def _asked(
        self, model: ModelSpec, messages: Messages, options: Options, transport: Http1Transport | None = None
    ) -> AsyncStream:
        """`transport` is the caller's to close; without one, this loop's, or one for this call alone."""
        targets = tuple(self._target(each, options) for each in listed(model))
        check_key(targets, options.get("key"))
        named = targets[0].model
        assert named is not None
        shape = Shape(options["schema"]) if "schema" in options else None
        request = build_request(named, messages, options, shape)
        targets = able(request, targets)
        kept = transport or self._kept.get(asyncio.get_running_loop())
        transport = kept or _transport()
        call = self._call(named, request=request, target=targets[0])
        call.targets = targets
        return AsyncStream(
            self._stack.chat(transport, targets=len(targets)),
            call,
            closed=None if kept is not None else transport.aclose,
            observers=self._observers,
            shape=shape,
            keep_alives=self._keep_alives,
        )

    def _call(self, model: str, *, stream: bool = True, **more: Any) -> Call:
        """One with a place in a trace, where calls are traced."""
        tracing = self._records.tracing if self._records is not None else None
        headers = tracing.context() if tracing is not None else None
        call = Call(request_id=f"req_{secrets.token_hex(12)}", model=model, stream=stream, headers=headers, **more)
        if tracing is not None:
            call.trace = trace_of(call)
        return call

    @overload
    def adapt(
        self, chunks: AsyncIterable[Any] | Awaitable[AsyncIterable[Any]], **how: Unpack[Adapting]
    ) -> AsyncStream: ...

    @overload
    def adapt(self, chunks: Iterable[Any], **how: Unpack[Adapting]) -> Stream: ...

    def adapt(self, chunks: Any, **how: Unpack[Adapting]) -> Stream | AsyncStream:
        """Another library's stream, or any iterable of chunks, with the life of a stream of ours.

        A sync iterable gives a `Stream`, an async one (or an awaitable of one) an `AsyncStream`. `chunks` are objects
        of the OpenAI, Anthropic, LiteLLM, Ollama or LangChain packages, or dicts. `timeout` is the longest pause before
        and between content, in seconds, or `Timeouts`; `recovery` is given the error that ended a source and gives
        another one, or None; `metadata` is whether `.chunks()` has metadata; `provider` says who answers. Raises
        `ConfigError` for what is no iterable of chunks.
        """
        if is_async(chunks):
            return self._adapted(chunks, how)
        return Stream(lambda: self._adapted(chunks, how), private_loop)

    def aadapt(self, chunks: Any, **how: Unpack[Adapting]) -> AsyncStream:
        """`adapt` for programs with a loop: an `AsyncStream` of a sync iterable too, which is read in a thread."""
        return self._adapted(chunks, how)

    def _adapted(self, chunks: Any, how: Adapting) -> AsyncStream:
        check_names(how, Adapting.__annotations__)
        provider = how.get("provider") or provider_of(chunks)
        handler = adapting(chunks, timeout=how.get("timeout", 60.0), recover=how.get("recovery"), provider=provider)
        call = self._call("")
        return AsyncStream(
            handler,
            call,
            observers=self._observers,
            metadata=how.get("metadata", False),
            provider=provider,
            keep_alives=self._keep_alives,
        )

    def stream(self, model: ModelSpec, messages: Messages, **options: Unpack[Options]) -> Stream:
        """`astream` for programs without a loop: the request is sent, and its status checked, before this returns."""
        return Stream(lambda: self.astream(model, messages, **options), private_loop)

    async def agenerate(self, model: ModelSpec, messages: Messages, **options: Unpack[Options]) -> Response:
        """The whole reply at once; the same path as `astream`, folded."""
        async with self.astream(model, messages, **options) as stream:
            async for _ in stream:
                pass
            return stream.response

    def generate(self, model: ModelSpec, messages: Messages, **options: Unpack[Options]) -> Response:
        """The whole reply at once; the same path as `stream`, folded."""
        return private_loop.run(self.agenerate(model, messages, **options))

    async def arun_tools(
        self,
        model: ModelSpec,
        messages: Messages,
        *,
        max_rounds: int = 10,
        timeout: float | None = None,
        tool_timeout: float | None = 60.0,
        concurrency: int = 8,
        heartbeat: float = 15.0,
        on_event: Callable[[Event], None] | None = None,
        **options: Unpack[Options],
    ) -> ToolRun:
        """Ask, run the `tools` that the reply calls, ask again with their results, until a reply calls none.

        `tools` are functions. Those that one reply calls run at once (`concurrency`), each for at most `tool_timeout`
        seconds; what fails is told to the model as an error. `on_event` is called in the loop with every event of every
        reply, and with a `Progress("tools", …)` whenever a tool has ended or `heartbeat` seconds have passed. A
        `tool_choice` that forces a call holds for the first request alone. Raises `ToolLimit` after `max_rounds`
        requests or `timeout` seconds, its `.run` being what was done; and whatever `astream` raises.
        """
        check_plain("on_event", on_event)
        asked = self._options(options, *Limits.__struct_fields__, "on_event")
        limits = Limits(
            max_rounds=max_rounds,
            timeout=timeout,
            tool_timeout=tool_timeout,
            concurrency=concurrency,
            heartbeat=heartbeat,
        )
        functions = read_functions(asked.get("tools") or ())
        told, extras = read_conversation(messages)
        asked["extra"] = {**extras, **(asked.get("extra") or {})}
        asked["tools"] = tuple(functions.values())
        kept = self._kept.get(asyncio.get_running_loop())
        transport = kept or _transport()

        async def ask(conversation: tuple[Message, ...], is_first: bool) -> Response:
            now = asked if is_first else unforced(asked)
            async with self._asked(model, conversation, now, transport) as stream:
                async for event in stream:
                    if on_event is not None:
                        on_event(event)
                return stream.response

        try:
            return await run_loop(ask, told, functions, limits, on_event)
        finally:
            if kept is None:
                await transport.aclose()

    def run_tools(self, model: ModelSpec, messages: Messages, **options: Unpack[ToolOptions]) -> ToolRun:
        """`arun_tools` for programs without a loop. `on_event` is called in a thread of Penstock's own."""
        return private_loop.run(self.arun_tools(model, messages, **options))

    async def aembed(
        self, model: str | Target, input: str | Sequence[str], **options: Unpack[EmbedOptions]
    ) -> Embeddings:
        """A vector for each text, in their order.

        More texts than the provider takes in one request are asked for in several, `concurrency` (4) at a time, their
        usage added up; `batch_size` is for a server whose limit nobody knows. `dimensions`: as many as the model has,
        unless it is told otherwise.
        """
        asked = known_embed_options(options)
        if not isinstance(model, str | Target):
            raise ConfigError("Vectors of two models do not compare.", fix="Name one model to embed with.")
        target = self._target(model, asked)
        assert target.model is not None
        embedding(target.dialect)
        extras = {name: dict(each) for name, each in (asked.get("extra") or {}).items()}
        request = EmbedRequest(
            target.model, read_texts(input), asked.get("dimensions"), asked.get("user"), extras=extras
        )
        kept = self._kept.get(asyncio.get_running_loop())
        transport = kept or _transport()

        async def ask(request: EmbedRequest) -> Embeddings:
            call = self._call(request.model, stream=False, target=target, route="embed")
            return await ask_once(self._stack.embed(transport, request), call, request, self._observers)

        try:
            most, concurrency = asked.get("batch_size"), asked.get("concurrency")
            return await embed_all(
                ask,
                request,
                most=most_texts(target) if most is None else most,
                concurrency=4 if concurrency is None else concurrency,
            )
        finally:
            if kept is None:
                await transport.aclose()

    def embed(self, model: str | Target, input: str | Sequence[str], **options: Unpack[EmbedOptions]) -> Embeddings:
        """`aembed` for programs without a loop."""
        return private_loop.run(self.aembed(model, input, **options))

    async def amodels(
        self, provider: str, *, base_url: str | None = None, dialect: str | None = None, key: str | None = None
    ) -> list[Model]:
        """What models it has, as it lists them itself."""
        key = key or self._keys.get(provider)
        target = find_upstream(
            provider,
            upstreams=self._upstreams,
            base_url=base_url,
            dialect=dialect,
            key=key,
            env_file=self._env_file,
        )
        path = listed_at(provider) if base_url is None and provider not in self._upstreams else None
        kept = self._kept.get(asyncio.get_running_loop())
        transport = kept or _transport()
        try:
            return await ask_models(target, transport, path=path)
        finally:
            if kept is None:
                await transport.aclose()

    def models(
        self, provider: str, *, base_url: str | None = None, dialect: str | None = None, key: str | None = None
    ) -> list[Model]:
        """`amodels` for programs without a loop."""
        return private_loop.run(self.amodels(provider, base_url=base_url, dialect=dialect, key=key))


def _transport() -> Http1Transport:
    return Http1Transport(environ=os.environ)


_default = Client()
stream = _default.stream
astream = _default.astream
generate = _default.generate
agenerate = _default.agenerate
run_tools = _default.run_tools
arun_tools = _default.arun_tools
embed = _default.embed
aembed = _default.aembed
models = _default.models
amodels = _default.amodels
adapt = _default.adapt
aadapt = _default.aadapt
