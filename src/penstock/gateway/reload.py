"""The gateway, whose configuration may change while it runs.

A new configuration makes a new application; requests that come from then on are its own, and those that run finish on
the one that they began with, which ends when its last is answered. Connections to upstreams are shared, records go to
the same exporters unless these changed. A configuration that is wrong changes nothing and is told in one line.

It is read again when somebody asks (`ask`), and when one of its files has changed and has then been left alone for a
moment. Where the gateway listens, and with how many processes, is settled when it starts.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import PenstockError
from penstock.config.effective import differences
from penstock.config.load import check_reach
from penstock.gateway.about import places, targets_now
from penstock.gateway.app import Shared, gateway
from penstock.gateway.exporters import exporters
from penstock.policy.breaker import Breakers
from penstock.policy.limits import Limits, Rules
from penstock.serving.asgi import lifespan
from penstock.serving.logs import log_to
from penstock.serving.running import Running
from penstock.telemetry.bus import Bus
from penstock.telemetry.exporters.prometheus import PrometheusExporter
from penstock.telemetry.recorder import InFlight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from pathlib import Path

    from penstock.canon.wire import HttpRequest, HttpResponse
    from penstock.config.model import Config
    from penstock.serving.asgi import App, Receive, Scope, Send
    from penstock.transport.base import Transport

_log = logging.getLogger(__name__)

#: how often the files are looked at
LOOK_S = 1.0

#: what a new configuration cannot change in a server that listens
SETTLED = ("host", "port", "workers")

#: changed keys that are named in a line
_NAMED = 6

Stamp = tuple[int, int, int] | None


class ReloadableGateway:
    """`load` reads the configuration, or raises the `ConfigError` that says why not. `files`: those that it is from.

    The transport is closed with it.
    """

    def __init__(
        self,
        config: Config,
        transport: Transport,
        *,
        load: Callable[[], Config],
        files: Callable[[Config], Iterable[Path]] = lambda config: (),
        look_s: float = LOOK_S,
        metrics_folder: Path | None = None,
        says: bool = True,
    ) -> None:
        self.config = config
        self.running = Running()
        self.failure: PenstockError | None = None
        self.on_failure: Callable[[], None] | None = None
        self._transport = transport
        self._lent = _Lent(transport)
        self._load = load
        self._files = files
        self._look_s = look_s
        self._says = says
        self._asked = asyncio.Event()
        self._limits = Limits(Rules(), whole="The gateway")
        self._breakers = Breakers()
        self._in_flight = InFlight()
        self._metrics = PrometheusExporter(metrics_folder)
        self._bus = self._bus_for(config)
        self._app = self._app_for(config, self._bus)
        self._older: dict[App, Bus] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return lifespan(receive, send, self._startup, self._shutdown)
        return self._app(scope, receive, send)

    def ask(self) -> None:
        """Read the configuration again, soon. From the loop's thread."""
        self._asked.set()

    # --- from its start to its end ---

    async def _startup(self) -> None:
        self._bus.start()
        await self._app.startup()
        self._tell_metrics()
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _shutdown(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await asyncio.gather(*self._ending, return_exceptions=True)
        self._older[self._app] = self._bus
        for app in self._older:
            await app.shutdown()
        await self._transport.aclose()
        for bus in set(self._older.values()):
            await _close(bus)

    async def _watch(self) -> None:
        watch = Watch(lambda: self._files(self.config))
        await asyncio.to_thread(watch.taken)
        while True:
            due = asyncio.get_running_loop().time() + self._look_s
            try:
                async with asyncio.timeout_at(due):
                    await self._asked.wait()
            except TimeoutError:
                self._metrics.was_late(asyncio.get_running_loop().time() - due)
            is_asked = self._asked.is_set()
            self._asked.clear()
            self._tell_metrics()
            if await asyncio.to_thread(watch.has_changed) or is_asked:
                await asyncio.to_thread(watch.taken)  # before it is read: what changes meanwhile is seen again
                await self.reload()

    def _tell_metrics(self) -> None:
        """Other processes know of this one what it has written."""
        if self._metrics.is_shared:
            now = places(self._limits), targets_now(self._breakers)
            self._metrics.see(self._in_flight.count, self._bus.states(), *now, self.running.refusals)

    def _bus_for(self, config: Config) -> Bus:
        """The numbers go on from one configuration to the next."""
        return Bus([*exporters(config), *([self._metrics] if config.telemetry.prometheus.enabled else [])])

    def _app_for(self, config: Config, bus: Bus) -> App:
        metrics = self._metrics if config.telemetry.prometheus.enabled else None
        return gateway(
            config, Shared(self._lent, bus, self.running, self._limits, self._breakers, self._in_flight, metrics)
        )

    # --- another configuration ---

    async def reload(self) -> None:
        """Take the configuration as it is now. Says what became of it; never raises for what is wrong with it."""
        old = self.config
        try:
            found = await asyncio.to_thread(self._load)
            config = with_settled(found, old)
            changes = differences(old, config)
            if changes:
                bus = self._bus if config.telemetry == old.telemetry else self._bus_for(config)
                app = self._app_for(config, bus)
        except PenstockError as error:
            _log.error("The configuration stays as it was: %s", error)
            return
        if self._says:
            tell(found, old, changes)
        if not changes:
            return
        if config.telemetry.log != old.telemetry.log:
            log_to(as_json=config.telemetry.log.format == "json")
        bus.start()
        await app.startup()
        former, former_bus = self._app, self._bus
        self.config, self._app, self._bus = config, app, bus
        self._older[former] = former_bus
        former.when_idle(lambda: self._end(former))

    def _end(self, app: App) -> None:
        bus = self._older.pop(app, None)
        if bus is None:
            return
        task = asyncio.get_running_loop().create_task(self._ended(app, bus))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _ended(self, app: App, bus: Bus) -> None:
        await app.shutdown()
        if bus is not self._bus and bus not in self._older.values():
            await _close(bus)


class Watch:
    """Whether files have changed since they were taken, and have then been left alone from one look to the next.

    Not while somebody writes them: half a file is often a right one that says something else.
    """

    def __init__(self, files: Callable[[], Iterable[Path]]) -> None:
        self._files = files
        self._taken: dict[Path, Stamp] = {}
        self._seen: dict[Path, Stamp] = {}

    def taken(self) -> None:
        self._taken = self._seen = self._stamps()

    def has_changed(self) -> bool:
        now, before = self._stamps(), self._seen
        self._seen = now
        return now != self._taken and now == before

    def _stamps(self) -> dict[Path, Stamp]:
        return {path: _stamp(path) for path in self._files()}


class _Lent:
    """A transport that is somebody else's to close."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def open(self, request: HttpRequest, *, connect_s: float | None = None) -> Coroutine[Any, Any, HttpResponse]:
        return self._transport.open(request, connect_s=connect_s)

    async def aclose(self) -> None:
        pass


async def _close(bus: Bus) -> None:
    if not await asyncio.to_thread(bus.close):
        for state in bus.states():
            if state.lag:
                _log.error("The exporter %s still hangs; %d records are lost.", state.name, state.lag)


def tell(found: Config, old: Config, changes: list[str]) -> None:
    """Say what a new configuration changes, and what of it waits for a restart."""
    for key in SETTLED:
        before, wanted = getattr(old.server, key), getattr(found.server, key)
        if before != wanted:
            _log.warning("server.%s is %s until a restart, when it will be %s.", key, before, wanted)
    if changes:
        named = ", ".join(changes[:_NAMED]) + (f" and {len(changes) - _NAMED} more" if len(changes) > _NAMED else "")
        _log.info("A new configuration is in force: %s changed.", named)
    else:
        _log.info("The configuration was read again and says what it said.")


def with_settled(config: Config, old: Config) -> Config:
    """The new configuration, listening where the old one does: there it must be fit to listen."""
    settled = {key: getattr(old.server, key) for key in SETTLED}
    config = msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, **settled))
    check_reach(config, "the new configuration")
    return config


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
