"""Run an ASGI application on uvicorn, on a socket that is bound before anything else starts.

A port that is taken, or a host that is not ours, is a `ConfigError` of one sentence. Ctrl-C and SIGTERM end the server:
it accepts no connection, answers 503 on those that it has, and lets what runs finish within `drain_s`. What is left
then is told so in its dialect and ended; the application's own shutdown comes last. A second signal waits for nothing.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

import uvicorn

from penstock.canon.errors import ConfigError
from penstock.serving.connection import Connection
from penstock.serving.intake import ClientLimits
from penstock.serving.workers import DRAIN, END_NOW, READY, RELOAD

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

    from penstock.canon.errors import PenstockError
    from penstock.serving.asgi import Receive, Scope, Send
    from penstock.serving.running import Running

BACKLOG = 4096

#: New containers between two rounds of the collector; Python's 700 is a round in every few requests.
GC_THRESHOLD = 20_000

#: How long a thread that exports may keep the streams' own thread waiting for its turn. Python's 5 ms are longer than
#: most requests take here, and each takes several turns.
SWITCH_S = 0.001

#: what a client has to read why its stream was ended, once the drain is over
FAREWELL_S = 1.0
#: how often a draining server looks whether it is done
LOOK_S = 0.02


def bind(host: str, port: int, *, is_shared: bool = False, listens: bool = True) -> socket.socket:
    """A socket at this address; port 0 takes a free one. `is_shared`: other processes of ours may listen there, too."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigError(
            f"The host {host} is not known.", fix="Use 127.0.0.1, or an address of this machine."
        ) from error
    family, _, _, _, address = found[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind(address)
        if listens:
            bound.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"Cannot listen on {host}:{port}: {reason}.", fix="Choose another with --port, or stop what uses it."
        ) from error
    bound.setblocking(False)
    return bound


def address_of(bound: socket.socket) -> str:
    """`http://host:port` as another program on this machine would write it."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Application(Protocol):
    """What a server runs: an ASGI application that tells what it is busy with, and may end itself."""

    running: Running
    failure: PenstockError | None
    on_failure: Callable[[], None] | None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]: ...


def run(
    app: Application,
    bound: socket.socket,
    *,
    drain_s: Callable[[], float],
    limits: Callable[[], ClientLimits] = ClientLimits,
    ready: Callable[[], None] | None = None,
    reload: Callable[[], None] | None = None,
    orders: socket.socket | None = None,
) -> None:
    """Serve until a signal, or until the application fails, whose error is then raised.

    `ready` is called when the first connection would be answered; `drain_s` when the drain begins; `limits` for each
    connection. SIGHUP calls `reload`, where there is one. With `orders` this is a worker (`workers`): its parent's
    orders count, and of signals SIGTERM alone, once.
    """

    def protocol(**given: Any) -> Connection:
        return Connection(limits=limits(), **given)

    http: Any = protocol
    config = uvicorn.Config(
        app,
        interface="asgi3",
        http=http,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
    )
    server = _Server(config, app, drain_s, ready, reload, orders)
    loop_factory = _uvloop()
    app.on_failure = server.stop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(server.serve(sockets=[bound]))
    if app.failure is not None:
        raise app.failure


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        app: Application,
        drain_s: Callable[[], float],
        ready: Callable[[], None] | None,
        reload: Callable[[], None] | None,
        orders: socket.socket | None,
    ) -> None:
        super().__init__(config)
        self._app = app
        self._drain_s = drain_s
        self._ready = ready
        self._reload = reload
        self._orders = orders

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn's own, but a signal that was obeyed is over: the process ends with 0, not with the signal."""
        if self._orders is not None:
            self.should_exit = self.should_exit or sig == signal.SIGTERM
            return
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True

    def _obey(self) -> None:
        assert self._orders is not None
        given = self._orders.recv(64)
        if RELOAD in given and self._reload is not None:
            self._reload()
        if not given or DRAIN in given or END_NOW in given:  # or the parent is gone
            self.should_exit = True
        self.force_exit = self.force_exit or END_NOW in given
        if not given:
            asyncio.get_running_loop().remove_reader(self._orders)

    def stop(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        if self._orders is not None:
            self._orders.setblocking(False)
            loop.add_signal_handler(signal.SIGHUP, lambda: None)  # the parent has it, too
            loop.add_reader(self._orders, self._obey)
        elif self._reload is not None:
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        # What was loaded by now stays for good: the collector need not look at it again with every full round.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        sys.setswitchinterval(SWITCH_S)
        if self._ready is not None and self.started:
            self._ready()
        if self._orders is not None and self.started:
            self._orders.send(READY)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain. Kept connections stay open for as long, so that who asks on one is told, and not cut off."""
        for server in self.servers:
            server.close()
        for bound in sockets or []:
            bound.close()
        running, state = self._app.running, self.server_state
        running.is_draining = True
        until = time.monotonic() + self._drain_s()
        await self._wait(lambda: not state.tasks, until)
        if state.tasks:
            running.stop()
            until = time.monotonic() + FAREWELL_S
            await self._wait(lambda: not state.tasks, until, even_when_forced=True)
        for connection in list(state.connections):
            connection.shutdown()
        # What is written but not yet read has the rest of the time.
        await self._wait(lambda: not state.connections, until)
        for connection in list(state.connections):  # its client does not read: to its call it has left
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=FAREWELL_S)
        await self.lifespan.shutdown()

    async def _wait(self, fact: Callable[[], bool], until: float, *, even_when_forced: bool = False) -> None:
        while not fact() and time.monotonic() < until and (even_when_forced or not self.force_exit):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it exists; plain asyncio elsewhere."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Any = uvloop.new_event_loop
    return factory  # type: ignore[no-any-return]
