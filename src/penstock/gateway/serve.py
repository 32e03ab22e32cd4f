"""Serve the gateway: in this process, or in several with this one as their parent (`serving.workers`).

Each worker is a whole gateway: it has its own connections, and its own counts of what is limited. The parent reads the
configuration when it changes, says what became of it, and has the workers read it again; workers that come later begin
with the last one that was right.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.canon.errors import ConfigError, PenstockError
from penstock.config.effective import differences
from penstock.gateway.app import check_whole
from penstock.gateway.reload import ReloadableGateway, Watch, tell, with_settled
from penstock.serving.intake import ClientLimits
from penstock.serving.server import address_of, bind, run
from penstock.serving.workers import Supervisor
from penstock.telemetry.exporters.prometheus import retire
from penstock.transport.http1 import Http1Transport

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from penstock.config.model import Config

_log = logging.getLogger(__name__)


def serve(
    config: Config,
    *,
    load: Callable[[], Config],
    files: Callable[[Config], Iterable[Path]],
    announce: Callable[[str], None],
) -> int:
    """Until a signal. The process's exit code. `announce` is told where the gateway is, once it answers."""
    if config.server.workers > 1:
        return _Parent(config, load, files, announce).run()
    app = ReloadableGateway(config, Http1Transport(environ=os.environ), load=load, files=files)
    bound = bind(config.server.host, config.server.port)
    run(
        app,
        bound,
        drain_s=lambda: app.config.server.drain,
        limits=lambda: _limits(app),
        ready=lambda: announce(_where(bound, config)),
        reload=app.ask,
    )
    return 0


def _limits(app: ReloadableGateway) -> ClientLimits:
    return ClientLimits(app.config.server.header_timeout, app.config.server.body_timeout)


class _Parent:
    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        files: Callable[[Config], Iterable[Path]],
        announce: Callable[[str], None],
    ) -> None:
        check_whole(config)  # what is wrong is told once, and not by each worker
        self._config = config
        self._load = load
        self._announce = announce
        self._watch = Watch(lambda: files(self._config))
        self._watch.taken()
        # Alone at first, and only then so that workers may join: a second gateway would share the port in silence.
        bind(config.server.host, config.server.port, listens=False).close()
        # Bound and not listening: it holds the port, and the kernel gives it no connection.
        self._bound = _bind_shared(config.server.host, config.server.port, listens=False)
        self._pid = os.getpid()
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-"))

    def run(self) -> int:
        try:
            return Supervisor(
                self._config.server.workers,
                self._serve,
                drain_s=lambda: self._config.server.drain,
                ready=lambda: self._announce(_where(self._bound, self._config)),
                tick=lambda: self._watch.has_changed() and self._reloaded(),
                reload=self._reloaded,
                has_ended=lambda pid: retire(self._folder, pid),
            ).run()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _serve(self, orders: socket.socket) -> None:
        """In a worker."""
        config = self._config
        app = ReloadableGateway(
            config, Http1Transport(environ=os.environ), load=self._load, metrics_folder=self._folder, says=False
        )
        bound = _bind_shared(config.server.host, self._bound.getsockname()[1])
        self._bound.close()
        run(
            app,
            bound,
            drain_s=lambda: app.config.server.drain,
            limits=lambda: _limits(app),
            reload=app.ask,
            orders=orders,
        )
        if os.getppid() != self._pid:  # the parent was killed, and tidies nothing up
            shutil.rmtree(self._folder, ignore_errors=True)

    def _reloaded(self) -> bool:
        """Whether there is a new configuration that is right."""
        self._watch.taken()
        try:
            found = self._load()
            config = with_settled(found, self._config)
            check_whole(config)
        except PenstockError as error:
            _log.error("The configuration stays as it was: %s", error)
            return False
        changes = differences(self._config, config)
        tell(found, self._config, changes)
        self._config = config
        return bool(changes)


def _bind_shared(host: str, port: int, *, listens: bool = True) -> socket.socket:
    if sys.platform != "linux":
        raise ConfigError(
            "Several workers need Linux, which spreads connections over them.", fix="Set server.workers to 1."
        )
    return bind(host, port, is_shared=True, listens=listens)


def _where(bound: socket.socket, config: Config) -> str:
    asked = ", ".join(f"{name} at {entry.url}" for name, entry in config.upstreams.items())
    workers = f", with {config.server.workers} workers" if config.server.workers > 1 else ""
    return f"Penstock gateway on {address_of(bound)}, asking {asked}{workers}. Ctrl-C stops it."
